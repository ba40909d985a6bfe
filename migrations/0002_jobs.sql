-- The job engine. Live rows only in `jobs`; what has ended lies in `job_history`, a partition a day.

create table krilin.jobs (
    id uuid primary key,
    seq bigint generated always as identity,
    user_id uuid,
    app_id text,
    kind text not null,
    queue text not null,
    args jsonb not null,
    state text not null check (state in ('parked', 'scheduled', 'ready', 'running')),
    priority smallint not null,
    attempt integer not null default 0 check (attempt >= 0),
    max_attempts integer not null check (max_attempts > 0),
    run_at timestamptz not null,
    due_at timestamptz,
    parked_reason text,
    lease_token uuid,
    lease_until timestamptz,
    worker_id uuid,
    started_at timestamptz,
    unique_key text,
    concurrency_key text,
    cost integer check (cost > 0),
    parent_id uuid,
    cause text,
    trace_parent text,
    progress jsonb,
    last_error jsonb,
    snoozes integer not null default 0,
    stop_at timestamptz,
    stop_reason text check (stop_reason in ('deadline', 'cancelled')),
    children_when text check (children_when in ('all_done', 'all_ended')),
    awaited boolean not null default false,
    created_at timestamptz not null,
    -- Minus a point in time is immutable, and so is the epoch of what comes out; a timestamptz alone is not.
    rank bigint not null generated always as (
        (date_part('epoch', coalesce(due_at, created_at) - timestamptz '1970-01-01 00:00:00+00') * 1000)::bigint
        - priority * 600000
    ) stored,
    constraint jobs_stop_check check ((stop_at is null) = (stop_reason is null)),
    constraint jobs_lease_check check ((state = 'running') = (lease_token is not null and lease_until is not null))
) with (
    -- Every claim, retry and completion leaves a dead row (the state stands in index predicates, so no update is HOT):
    -- vacuum after a fixed number of them, however many scheduled rows lie beside.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 20000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    -- While somebody holds an old snapshot nothing can be removed, and every vacuum reads all that has died since: that must
    -- not take a core. What it reads is bounded by this, what it writes by vacuum_cost_page_dirty (below).
    autovacuum_vacuum_cost_delay = 2,
    autovacuum_vacuum_cost_limit = 400,
    -- Giving the file's tail back to the operating system takes an exclusive lock and tells the planner that the table is
    -- empty, upon which it caches sequential scans.
    vacuum_truncate = off
);

-- A vacuum of `jobs` writes each page that a few dozen jobs have left, which are in memory and go back to the disk anyway. At
-- the default price of 20 it falls behind forty thousand jobs a second, and the table grows; at 4 it keeps up.
do $$
begin
    execute format('alter database %I set vacuum_cost_page_dirty = 4', current_database());
exception when insufficient_privilege then
    null;
end
$$;

comment on table krilin.jobs is 'Pending and running jobs. A job that ends leaves this table for job_history in the same statement.';
comment on column krilin.jobs.seq is 'The order of equal ranks: that of insertion.';
comment on column krilin.jobs.rank is 'The place in the queue, fixed at the enqueue: claims go by rank and seq, never by priority. Milliseconds of the instant from which the job waits, less ten minutes for each point of priority: so a job is overtaken by those of a higher priority for that long and no longer, and none starves.';
comment on column krilin.jobs.state is 'Physical: parked, scheduled and ready are all `pending` outside. A parked row waits for its children. Scheduled rows stand in an index of their own, never in front of ready ones.';
comment on column krilin.jobs.priority is 'Higher runs sooner; a point is worth ten minutes of waiting. See rank.';
comment on column krilin.jobs.attempt is 'Attempts begun and not given back; the present one included while running.';
comment on column krilin.jobs.due_at is 'The time that was asked for; null for at once. A retry moves run_at and never this.';
comment on column krilin.jobs.parked_reason is 'Why a pending job waits, where it is not only for its time.';
comment on column krilin.jobs.lease_token is 'The right to finish this job. Fresh with every claim; a completion that names another one changes nothing.';
comment on column krilin.jobs.unique_key is 'At most one live job has it; enqueuing another gives back this one.';
comment on column krilin.jobs.concurrency_key is 'Jobs of a queue with the same key run one at a time, unless the queue is set otherwise.';
comment on column krilin.jobs.cost is 'What it takes of a rate; null is one unit.';
comment on column krilin.jobs.cause is 'What asked for the job, in words for the operator: `http`, `schedule`, `job <id>`.';
comment on column krilin.jobs.trace_parent is 'W3C traceparent of the request that asked.';
comment on column krilin.jobs.last_error is 'The error of the attempt before: {code, message, details}.';
comment on column krilin.jobs.snoozes is 'Waits so far that cost no attempt.';
comment on column krilin.jobs.stop_at is 'When the job must end: its deadline, or the moment in which it was cancelled while it ran.';
comment on column krilin.jobs.children_when is 'The job begins when the jobs that name it as parent_id have ended, and this is what it expects of them.';
comment on column krilin.jobs.parent_id is 'The job that waits for this one.';
comment on column krilin.jobs.awaited is 'Somebody waits for the end: its commit is announced on krilin_finished.';

-- Ready jobs of users and of concurrency keys stand in jobs_lanes_idx (0005), the others here.
create index jobs_ready_idx on krilin.jobs (queue, rank, seq)
    where state = 'ready' and user_id is null and concurrency_key is null;
create index jobs_scheduled_idx on krilin.jobs (run_at) where state = 'scheduled';
create index jobs_running_idx on krilin.jobs (lease_until) where state = 'running';
create unique index jobs_unique_key on krilin.jobs (unique_key) where unique_key is not null;
create index jobs_user_idx on krilin.jobs (user_id, id) where user_id is not null;

create table krilin.job_history (
    id uuid not null,
    user_id uuid,
    app_id text,
    kind text not null,
    queue text not null,
    args jsonb not null,
    state text not null check (state in ('done', 'dead', 'cancelled')),
    priority smallint not null,
    attempt integer not null,
    max_attempts integer not null,
    run_at timestamptz not null,
    due_at timestamptz,
    worker_id uuid,
    started_at timestamptz,
    unique_key text,
    concurrency_key text,
    parent_id uuid,
    cause text,
    trace_parent text,
    progress jsonb,
    result jsonb,
    error jsonb,
    created_at timestamptz not null,
    finished_at timestamptz not null
) partition by range (finished_at);

comment on table krilin.job_history is 'Jobs that ended: done, dead or cancelled. A partition per UTC day of finished_at; retention drops whole partitions.';
comment on column krilin.job_history.attempt is 'Attempts spent, the final one included.';

create index job_history_id_idx on krilin.job_history (id);
create index job_history_user_idx on krilin.job_history (user_id, id) where user_id is not null;

create table krilin.job_history_default partition of krilin.job_history default;
comment on table krilin.job_history_default is 'Catches jobs whose day has no partition, so that a worker can always finish; normally empty.';

create table krilin.attempts (
    id bigint generated always as identity primary key,
    job_id uuid not null,
    attempt integer not null,
    worker_id uuid,
    started_at timestamptz,
    finished_at timestamptz not null,
    outcome text not null check (outcome in ('failed', 'snoozed', 'lost')),
    error jsonb
);
comment on table krilin.attempts is 'Attempts that ended without finishing their job. The final one is the job_history row itself.';
comment on column krilin.attempts.outcome is 'failed: the handler gave an error. snoozed: not now, no attempt spent. lost: the lease ran out.';
create index attempts_job_idx on krilin.attempts (job_id);
create index attempts_finished_idx on krilin.attempts using brin (finished_at);

create table krilin.idempotency_keys (
    user_id uuid,
    key text not null,
    request_hash bytea not null,
    job_id uuid not null,
    answer jsonb not null default '{"outcome": "created", "state": "pending"}',
    created_at timestamptz not null,
    constraint idempotency_keys_unique unique nulls not distinct (user_id, key)
);
comment on table krilin.idempotency_keys is 'Idempotency-Key of a request and the job it made; committed together with the job.';
comment on column krilin.idempotency_keys.request_hash is 'SHA-256 of the request; the same key with another hash is refused.';
comment on column krilin.idempotency_keys.answer is 'What the request was answered: {outcome, state, told}.';
create index idempotency_keys_created_idx on krilin.idempotency_keys (created_at);

-- What no statement searches by needs no statistics, and to sort a sample of these columns is most of what an analyze of a busy
-- day's partition costs. (A partition does not inherit this from its parent.)
create function krilin.sample_less(history text) returns void
language plpgsql set search_path = krilin, pg_temp as $$
begin
    execute format('alter table krilin.%I ', history) || (
        select string_agg(format('alter column %I set statistics 0', spared), ', ')
        from unnest('{args, priority, attempt, max_attempts, run_at, due_at, worker_id, started_at, unique_key, concurrency_key,
            cause, trace_parent, progress, result, error}'::text[]) as spared);
end $$;
comment on function krilin.sample_less(text) is 'Keeps analyze from the columns of the history that no statement searches by.';
revoke all on function krilin.sample_less(text) from public;
select krilin.sample_less('job_history');

-- The runtime role may not create or drop tables. These two functions are all it can do about partitions.

create function krilin.create_history_partitions(days integer) returns integer
language plpgsql security definer set search_path = krilin, pg_temp set lock_timeout = '2s' as $$
declare
    first_day date := (krilin.now() at time zone 'UTC')::date;
    day date;
    made integer := 0;
begin
    if days not between 0 and 60 then
        raise exception 'days must be between 0 and 60, not %', days;
    end if;
    perform pg_advisory_xact_lock(hashtext('krilin.job_history'));
    for day in select first_day + offset_days from generate_series(0, days) as offset_days loop
        if to_regclass('krilin.job_history_' || to_char(day, 'YYYYMMDD')) is null then
            begin
                execute format(
                    'create table krilin.%I partition of krilin.job_history for values from (%L) to (%L)',
                    'job_history_' || to_char(day, 'YYYYMMDD'),
                    to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
                    to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
                perform krilin.sample_less('job_history_' || to_char(day, 'YYYYMMDD'));
                made := made + 1;
            exception when check_violation then
                -- Rows of that day already lie in the default partition; they stay there until they are dropped by age.
                raise warning 'no partition for %: its rows are in job_history_default', day;
            end;
        end if;
    end loop;
    return made;
end $$;
comment on function krilin.create_history_partitions(integer) is 'Creates the missing partitions of today and the given number of days after it; gives their count.';

create function krilin.drop_history_partitions(keep interval) returns integer
language plpgsql security definer set search_path = krilin, pg_temp set lock_timeout = '2s' as $$
declare
    last_day date := ((krilin.now() - keep) at time zone 'UTC')::date;
    old text;
    dropped integer := 0;
begin
    if keep < interval '1 day' then
        raise exception 'at least a day is kept, not %', keep;
    end if;
    perform pg_advisory_xact_lock(hashtext('krilin.job_history'));
    for old in
        select child.relname
        from pg_inherits
        join pg_class child on child.oid = pg_inherits.inhrelid
        where pg_inherits.inhparent = 'krilin.job_history'::regclass
          and child.relname ~ '^job_history_[0-9]{8}$'
          and to_date(right(child.relname, 8), 'YYYYMMDD') < last_day
        order by child.relname
    loop
        execute format('drop table krilin.%I', old);
        dropped := dropped + 1;
    end loop;
    delete from krilin.job_history_default where finished_at < krilin.now() - keep;
    return dropped;
end $$;
comment on function krilin.drop_history_partitions(interval) is 'Drops the partitions whose whole day is older than the interval; gives their count.';

create function krilin.analyze_history() returns void
language plpgsql security definer set search_path = krilin, pg_temp as $$
begin
    analyze krilin.job_history;
end $$;
comment on function krilin.analyze_history() is 'Tells the planner what the history holds; the parent of partitions is never analyzed by itself.';

revoke all on function krilin.analyze_history() from public;
grant execute on function krilin.analyze_history() to krilin_runtime;
revoke all on function krilin.create_history_partitions(integer) from public;
revoke all on function krilin.drop_history_partitions(interval) from public;
grant execute on function krilin.create_history_partitions(integer) to krilin_runtime;
grant execute on function krilin.drop_history_partitions(interval) to krilin_runtime;

select krilin.create_history_partitions(7);
