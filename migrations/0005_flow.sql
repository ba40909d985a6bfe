-- Flow control: what an operator may set for a queue while it runs, and who is there to work on it.
--
-- Nothing here counts what runs. Limits are judged by the claim, on the rows of `jobs` whose state is `running`: a worker that
-- vanishes gives its places back with its leases, and nothing can leak.

create table krilin.queues (
    name text primary key,
    paused_at timestamptz,
    paused_by text,
    paused_reason text,
    max_running integer,
    max_running_per_user integer,
    max_running_per_key integer,
    rate_units bigint,
    rate_period interval,
    rate_exact boolean not null default true,
    user_rate_units bigint,
    user_rate_period interval,
    key_rate_units bigint,
    key_rate_period interval,
    updated_at timestamptz not null,
    updated_by text not null,
    restricted boolean not null generated always as (
        paused_at is not null or max_running is not null or max_running_per_user is not null
        or rate_units is not null or user_rate_units is not null or key_rate_units is not null
    ) stored,
    constraint queues_max_running_check check (max_running > 0 and max_running_per_user > 0 and max_running_per_key > 0),
    constraint queues_rate_check check (rate_units > 0 and (rate_units is null) = (rate_period is null)),
    constraint queues_user_rate_check check (user_rate_units > 0 and (user_rate_units is null) = (user_rate_period is null)),
    constraint queues_key_rate_check check (key_rate_units > 0 and (key_rate_units is null) = (key_rate_period is null)),
    constraint queues_pause_check check ((paused_at is null) = (paused_by is null))
);
comment on table krilin.queues is 'What an operator has set for a queue; a queue without a row has no limits. The row `all` stands for all queues together.';
comment on column krilin.queues.max_running_per_key is 'Jobs with the same concurrency_key that run at once; null means one.';
comment on column krilin.queues.rate_units is 'Units that may start in any rate_period; a job costs its `cost`, one unless given.';
comment on column krilin.queues.rate_exact is 'True: the total of the fleet is kept in rate_spent. False: each worker keeps its share by itself.';
comment on column krilin.queues.restricted is 'A claim that serves no users and keys need look no further when this is false.';

create table krilin.queue_users (
    queue text not null,
    user_id uuid not null references krilin.users (id) on delete cascade,
    weight integer not null default 1,
    max_running integer,
    primary key (queue, user_id),
    constraint queue_users_weight_check check (weight between 1 and 1000),
    constraint queue_users_max_running_check check (max_running > 0)
);
comment on table krilin.queue_users is 'Users whose share of a queue differs from the others''.';
comment on column krilin.queue_users.weight is 'A user with weight 3 gets three places for each that a user without a row gets, while both wait.';

create table krilin.queue_keys (
    queue text not null,
    key text not null,
    max_running integer not null,
    primary key (queue, key),
    constraint queue_keys_max_running_check check (max_running > 0)
);
comment on table krilin.queue_keys is 'Concurrency keys whose limit differs from the queue''s max_running_per_key.';

create table krilin.rate_spent (
    queue text not null,
    subject text not null,
    at timestamptz not null,
    units bigint not null
);
comment on table krilin.rate_spent is 'Units that were started under an exact rate: a row per claim, folded into few as they age, gone when no window reaches them. Never updated.';
comment on column krilin.rate_spent.subject is 'Empty for the queue as a whole, else `user:<id>` or `key:<concurrency_key>`.';
create index rate_spent_idx on krilin.rate_spent (queue, subject, at);

create table krilin.workers (
    id uuid primary key,
    queues text[] not null,
    kinds text[] not null,
    started_at timestamptz not null,
    seen_at timestamptz not null,
    claimed bigint[] not null default '{}'
);
comment on column krilin.workers.claimed is 'The jobs it has claimed since it started, of each of its queues in their order.';
comment on table krilin.workers is 'Workers that were heard of lately. Nothing is decided by it but shares of rates and what an operator is told.';
