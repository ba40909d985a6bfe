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

-- The fair claim. Jobs of users and jobs with a concurrency key wait in lanes: one per user and key. A claim goes round the users
-- who wait, from where the one before stopped, and gives each a part of its batch by weight. A lane at its limit costs one look,
-- however many jobs stand in it. Jobs with neither stand in jobs_ready_idx and take their turn as one more user.

create function krilin.line(user_id uuid) returns uuid language sql immutable parallel safe as
    $$ select coalesce(user_id, '00000000-0000-0000-0000-000000000000'::uuid) $$;
comment on function krilin.line(uuid) is 'A user''s place in the round; that of jobs without a user is the first.';
create function krilin.lane(concurrency_key text) returns bigint language sql immutable parallel safe as
    $$ select coalesce(hashtextextended(concurrency_key, 0), 0) $$;
comment on function krilin.lane(text) is 'A key''s lane within a user''s line. Two keys of one lane (one in 2^64) would only wait for each other.';

create index jobs_lanes_idx on krilin.jobs (queue, krilin.line(user_id), krilin.lane(concurrency_key), rank, seq)
    where state = 'ready' and (user_id is not null or concurrency_key is not null);

-- Of all that is found in jobs_lanes_idx, what lies before it may be the entries of many thousand jobs that have ended, until the
-- next vacuum: whoever looks further in the same line begins where something was found.

-- The users whose turn it is, in order: at most `most`, beginning with `after` when `it_too`, else with the next. Each is found by
-- one descent of jobs_lanes_idx. Where a user's first job was seen, `lane`, `rank` and `seq` say so.
create function krilin.turns(of_queue text, after uuid, it_too boolean, most integer)
returns table (nth integer, line uuid, lane bigint, rank bigint, seq bigint) language sql stable as $$
    with recursive ring (nth, line, lane, rank, seq, wrapped) as (
        (select 1, krilin.line(f.line), f.lane, f.rank, f.seq, f.line is null
         from (select) as one left join lateral (
             select after as line, null::bigint as lane, null::bigint as rank, null::bigint as seq where it_too
             union all
             (select krilin.line(j.user_id), krilin.lane(j.concurrency_key), j.rank, j.seq from krilin.jobs j
              where not it_too and j.state = 'ready' and j.queue = of_queue
                  and (j.user_id is not null or j.concurrency_key is not null) and krilin.line(j.user_id) > after
              order by krilin.line(j.user_id), krilin.lane(j.concurrency_key), j.rank, j.seq limit 1)) f on true)
        union all
        select r.nth + 1, krilin.line(n.line), n.lane, n.rank, n.seq, r.wrapped or n.line is null
        from ring r left join lateral (
            select krilin.line(j.user_id) as line, krilin.lane(j.concurrency_key) as lane, j.rank, j.seq from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                and krilin.line(j.user_id) > r.line
            order by krilin.line(j.user_id), krilin.lane(j.concurrency_key), j.rank, j.seq limit 1) n on true
        where r.nth < most
            and not (n.line is null and (r.wrapped or r.line = krilin.line(null)))
            and not ((r.wrapped or n.line is null)
                and (krilin.line(n.line) > after or krilin.line(n.line) = after and it_too))
    )
    select r.nth, r.line, r.lane, r.rank, r.seq from ring r
    where r.line <> krilin.line(null)
        or exists (
            select from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and j.user_id is null and j.concurrency_key is null)
        or exists (
            select from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                and krilin.line(j.user_id) = krilin.line(null))
$$;

-- A user's lanes, at most `most`, the one whose first job is first before the others. `lane` is null for jobs with neither user nor
-- key, and `key` for those without a key; `place` is where the first job lies. What lies before `from_lane`, `from_rank` and `from_seq`
-- is not looked at, unless they are null.
create function krilin.lanes(of_queue text, of_line uuid, most integer, from_lane bigint, from_rank bigint, from_seq bigint)
returns table (lane bigint, key text, rank bigint, seq bigint, place tid) language sql stable as $$
    with recursive found (n, lane, key, rank, seq, place) as (
        (select 1, krilin.lane(j.concurrency_key), j.concurrency_key, j.rank, j.seq, j.ctid from krilin.jobs j
         where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
             and krilin.line(j.user_id) = of_line and (krilin.lane(j.concurrency_key), j.rank, j.seq)
                 >= (coalesce(from_lane, -9223372036854775808), coalesce(from_rank, 0), coalesce(from_seq, 0))
         order by krilin.lane(j.concurrency_key), j.rank, j.seq limit 1)
        union all
        select f.n + 1, x.*
        from found f cross join lateral (
            select krilin.lane(j.concurrency_key), j.concurrency_key, j.rank, j.seq, j.ctid from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                and krilin.line(j.user_id) = of_line and krilin.lane(j.concurrency_key) > f.lane
            order by krilin.lane(j.concurrency_key), j.rank, j.seq limit 1) x
        where f.n < most
    )
    select f.lane, f.key, f.rank, f.seq, f.place from found f
    union all
    (select null, null, j.rank, j.seq, j.ctid from krilin.jobs j
     where of_line = krilin.line(null) and j.state = 'ready' and j.queue = of_queue
         and j.user_id is null and j.concurrency_key is null
     order by j.rank, j.seq limit 1)
    order by 3, 4
$$;

-- What runs of a queue: {"user:<id>": count, "key:<key>": count}. Rides on jobs_running_idx. (Not in the language sql: Postgres
-- plans such a function anew with every call where it cannot put it into the caller's statement.)
create function krilin.running(of_queue text) returns jsonb language plpgsql stable as $$
begin
    return (select coalesce(jsonb_object_agg(c.subject, c.n), '{}') from (
        select 'user:' || j.user_id as subject, count(*) as n from krilin.jobs j
        where j.state = 'running' and j.queue = of_queue and j.user_id is not null group by j.user_id
        union all
        select 'key:' || j.concurrency_key, count(*) from krilin.jobs j
        where j.state = 'running' and j.queue = of_queue and j.concurrency_key is not null group by j.concurrency_key) c);
end $$;

-- What of `units` per `period` is left for `subject`; null when there is no such rate. Rides on rate_spent_idx.
create function krilin.units_left(of_queue text, of_subject text, units bigint, period interval, moment timestamptz)
returns bigint language sql stable as $$
    select case when units is not null then units - coalesce((
        select sum(s.units) from krilin.rate_spent s
        where s.queue = of_queue and s.subject = of_subject and s.at > moment - period), 0)::bigint end
$$;

-- Takes note of units that start now. Rows no window reaches are forgotten, and now and then the older ones are folded: each as late
-- as the latest of them, so that a window never holds fewer than were started in it.
create function krilin.spend(of_queue text, of_subject text, spent bigint, period interval, moment timestamptz)
returns void language plpgsql as $$
begin
    insert into krilin.rate_spent (queue, subject, at, units) values (of_queue, of_subject, moment, spent);
    if random() < 0.02 then
        delete from krilin.rate_spent s where s.queue = of_queue and s.subject = of_subject and s.at <= moment - period;
        with old as (
            delete from krilin.rate_spent s
            where s.queue = of_queue and s.subject = of_subject and s.at <= moment - period / 64 returning s.at, s.units
        )
        insert into krilin.rate_spent (queue, subject, at, units)
        select of_queue, of_subject, max(o.at), sum(o.units) from old o
        group by floor(extract(epoch from o.at) / (extract(epoch from period) / 64));
    end if;
end $$;

-- The period of the rate that counts what `subject` spends of a queue; null when there is none.
create function krilin.window_of(settings krilin.queues, subject text) returns interval language sql stable as $$
    select case when subject = '' then settings.rate_period when subject like 'user:%' then settings.user_rate_period
        else settings.key_rate_period end
$$;

-- Locks the first jobs of a lane from `from_rank` and `from_seq` on: at most `most`, and what `units` allow. A job that costs more than all units of its rate takes all.
create function krilin.take(
    of_queue text, of_line uuid, of_lane bigint, from_rank bigint, from_seq bigint, most integer, units bigint, cost_max bigint,
    out picked tid[], out taken integer, out spent bigint)
language plpgsql as $$
begin
    if of_lane is null then
        select array_agg(p.ctid), count(*), coalesce(sum(p.cost), 0) into picked, taken, spent from (
            select r.ctid, r.cost, case when units is not null then sum(r.cost) over (rows unbounded preceding) end as total
            from (
                select j.ctid, least(coalesce(j.cost, 1), cost_max) as cost
                from krilin.jobs j
                where j.state = 'ready' and j.queue = of_queue and j.user_id is null and j.concurrency_key is null
                    and (j.rank, j.seq) >= (from_rank, from_seq)
                order by j.rank, j.seq
                limit most
                for update skip locked) r) p
        where units is null or p.total <= units;
    else
        select array_agg(p.ctid), count(*), coalesce(sum(p.cost), 0) into picked, taken, spent from (
            select r.ctid, r.cost, case when units is not null then sum(r.cost) over (rows unbounded preceding) end as total
            from (
                select j.ctid, least(coalesce(j.cost, 1), cost_max) as cost
                from krilin.jobs j
                where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                    and krilin.line(j.user_id) = of_line and krilin.lane(j.concurrency_key) = of_lane
                    and (j.rank, j.seq) >= (from_rank, from_seq)
                order by j.rank, j.seq
                limit most
                for update skip locked) r) p
        where units is null or p.total <= units;
    end if;
end $$;

-- The pick of a queue for which nothing is set: all users weigh the same and each key runs one job at a time. Then one statement
-- finds what krilin.pick would go round for, at less than half the cost; the second locks it.
--
-- In, beside what krilin.pick is given: the lanes in which a job with a key runs, and the most that a job can cost (null for any).
-- Out, beside what it gives: the units that the rows cost together.
create function krilin.pick_freely(
    of_queue text, most integer, turn uuid, turn_left integer, busy_lanes bigint[], cost_max bigint,
    out picked tid[], out next_turn uuid, out next_left integer, out more boolean, out held boolean, out spent bigint)
language plpgsql as $$
declare
    visits_max constant integer := 64;
    places tid[];
begin
    with busy as materialized (select b.lane from unnest(busy_lanes) as b (lane)),
    turns as materialized (
        select t.nth, t.line, t.lane, t.rank, t.seq, b.n as busy, case when t.nth = 1 and turn_left > 0 and count(*) over () > 1 then turn_left
            else ceil(most::float8 / count(*) over ())::integer end as quota
        from krilin.turns(of_queue, turn, turn_left > 0, least(visits_max, most + 1)) t
        cross join (select count(*)::integer as n from busy) b
    ),
    -- As many lanes of a user as they can take from, and as many more as can be busy: by what runs, or by a user before them who
    -- has the same key.
    lanes as materialized (
        select t.nth, t.line, t.quota, l.*, l.key is not null and (
            l.lane in (select b.lane from busy b)
            or row_number() over (partition by l.key order by t.nth) > 1) as is_busy
        from turns t cross join lateral krilin.lanes(
            of_queue, t.line, t.quota + t.busy + least((t.nth - 1) * t.quota, most), t.lane, t.rank, t.seq) l
    ),
    candidates as (
        select l.nth, l.quota, l.rank, l.seq, l.place from lanes l where l.key is not null and not l.is_busy
        union all
        select l.nth, l.quota, r.* from lanes l cross join lateral (
            select j.rank, j.seq, j.ctid from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                and krilin.line(j.user_id) = l.line and krilin.lane(j.concurrency_key) = l.lane
                and (j.rank, j.seq) >= (l.rank, l.seq)
            order by j.rank, j.seq limit l.quota) r
        where l.key is null and l.lane is not null
        union all
        select l.nth, l.quota, r.* from lanes l cross join lateral (
            select j.rank, j.seq, j.ctid from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and j.user_id is null and j.concurrency_key is null
                and (j.rank, j.seq) >= (l.rank, l.seq)
            order by j.rank, j.seq limit l.quota) r
        where l.lane is null
    ),
    taken as materialized (
        select c.*, row_number() over (order by c.nth, c.own) as n
        from (select c.*, row_number() over (partition by c.nth order by c.rank, c.seq) as own from candidates c) c
        where c.own <= c.quota
        order by n limit most
    ),
    last as (
        select count(*) >= most as is_full, bool_or(t.own = t.quota) as some_quota_is,
            case when count(*) >= most then max(t.nth) else (select max(u.nth) from turns u) end as nth
        from taken t
    )
    select array(select t.place from taken t order by t.n), coalesce((select u.line from turns u where u.nth = l.nth), turn),
        case when l.is_full then (select u.quota from turns u where u.nth = l.nth)
            - (select count(*) from taken t where t.nth = l.nth) else 0 end,
        l.is_full or coalesce(l.some_quota_is, false) or (select count(*) from turns) >= least(visits_max, most + 1),
        exists (select from lanes w where w.is_busy or w.key is not null and exists (
            select from krilin.jobs j
            where j.state = 'ready' and j.queue = of_queue and (j.user_id is not null or j.concurrency_key is not null)
                and krilin.line(j.user_id) = w.line and krilin.lane(j.concurrency_key) = w.lane
                and (j.rank, j.seq) > (w.rank, w.seq)))
    into places, next_turn, next_left, more, held
    from last l;
    select coalesce(array_agg(l.ctid), '{}'), coalesce(sum(l.cost), 0) into picked, spent from (
        select j.ctid, least(coalesce(j.cost, 1), cost_max) as cost from krilin.jobs j
        where j.ctid = any (places) and j.state = 'ready'
        for update skip locked) l;
end $$;

-- Picks what a claim may take of a queue with users, keys or limits. Picks nothing of a queue that is paused.
--
-- Invariant: no limit is ever exceeded. Picks of one queue come one after the other: each holds the queue's lock until its claim has
-- committed, and a statement of a volatile function sees what was committed when it begins. (Two-key advisory locks of the
-- transaction: 7717 is the class, 0 stands for all queues; they end with the transaction, whatever becomes of the connection.)
--
-- In: the queue; how many; whose turn it is and how many they still had of it; what a rate that each worker keeps by itself allows.
-- Out: the rows, locked; whose turn it is then; whether there is more, by all that was seen; whether something waits for a limit;
-- units taken; for a rate that is not exact, this worker's share and its period.
create function krilin.pick(
    of_queue text, most integer, turn uuid, turn_left integer, allowed bigint,
    out picked tid[], out next_turn uuid, out next_left integer, out more boolean, out held boolean, out units_taken bigint,
    out share double precision, out share_period interval)
language plpgsql as $$
declare
    visits_max constant integer := 64;
    everything krilin.queues;
    settings krilin.queues;
    moment timestamptz;
    room integer := most;
    units bigint := allowed;
    cost_max bigint;
    has_users boolean;
    has_keys boolean;
    all_running integer;
    running integer;
    running_of_users integer;
    busy_lanes bigint[];
    runs jsonb;
    who record;
    quota integer;
    visits integer := 0;
    user_limit integer;
    user_room integer;
    user_units bigint;
    user_taken integer;
    user_spent bigint;
    line record;
    lane_room integer;
    lane_units bigint;
    rows tid[];
    taken integer;
    spent bigint;
begin
    picked := '{}'; next_turn := turn; next_left := turn_left; more := false; held := false; units_taken := 0;
    if most <= 0 then
        return;
    end if;
    perform pg_advisory_xact_lock(7717, hashtext(of_queue));
    if not exists (select from krilin.queues q where q.name in (of_queue, 'all'))
        and not exists (select from krilin.queue_users u where u.queue = of_queue)
        and not exists (select from krilin.queue_keys k where k.queue = of_queue)
    then
        busy_lanes := array(
            select krilin.lane(j.concurrency_key) from krilin.jobs j
            where j.state = 'running' and j.queue = of_queue and j.concurrency_key is not null);
        select p.picked, p.next_turn, p.next_left, p.more, p.held into picked, next_turn, next_left, more, held
        from krilin.pick_freely(of_queue, most, turn, turn_left, busy_lanes, null) p;
        return;
    end if;
    select * into everything from krilin.queues q where q.name = 'all';
    if everything.max_running is not null then
        perform pg_advisory_xact_lock(7717, 0);
    end if;
    select * into settings from krilin.queues q where q.name = of_queue;
    if settings.paused_at is not null or everything.paused_at is not null then
        return;
    end if;
    moment := krilin.now();
    -- All that is asked of what runs, in one pass over it: thousands of rows in a large fleet.
    select count(*), count(*) filter (where j.queue = of_queue),
        count(*) filter (where j.queue = of_queue and j.user_id is not null),
        coalesce(array_agg(krilin.lane(j.concurrency_key))
            filter (where j.queue = of_queue and j.concurrency_key is not null), '{}')
    into all_running, running, running_of_users, busy_lanes
    from krilin.jobs j where j.state = 'running';
    room := least(room, everything.max_running - all_running, settings.max_running - running);
    if settings.rate_exact then
        units := krilin.units_left(of_queue, '', settings.rate_units, settings.rate_period, moment);
    elsif settings.rate_units is not null then
        share_period := settings.rate_period;
        select settings.rate_units::float8 / greatest(1, count(*)) into share from krilin.workers w
        where of_queue = any (w.queues) and w.seen_at > moment - interval '10 seconds';
        units := coalesce(allowed, 0);
    else
        units := null;
    end if;
    held := room < most or coalesce(units < most, false);
    if room <= 0 or units <= 0 then
        return;
    end if;
    cost_max := least(settings.rate_units, settings.user_rate_units, settings.key_rate_units, case when share is not null then greatest(floor(share), 1) end);
    has_users := exists (select from krilin.queue_users u where u.queue = of_queue);
    has_keys := exists (select from krilin.queue_keys k where k.queue = of_queue);
    -- Where nothing that this claim may take can reach a limit, it takes as if there were none; unless that costs too much.
    if room = most and coalesce(units >= most, true) and not has_users and not has_keys and settings.max_running_per_key is null
        and settings.user_rate_units is null and settings.key_rate_units is null
        and coalesce(settings.max_running_per_user - most >= running_of_users, true)
    then
        select p.picked, p.next_turn, p.next_left, p.more, p.held, case when units is not null then p.spent else 0 end
        into picked, next_turn, next_left, more, held, units_taken
        from krilin.pick_freely(of_queue, most, turn, turn_left, busy_lanes, cost_max) p;
        if coalesce(units_taken <= units, true) then
            if units_taken > 0 and settings.rate_exact then
                perform krilin.spend(of_queue, '', units_taken, settings.rate_period, moment);
            end if;
            return;
        end if;
        picked := '{}'; next_turn := turn; next_left := turn_left; more := false; held := false; units_taken := 0;
    end if;

    for who in
        select t.nth, t.line, t.lane, t.rank, t.seq, coalesce(u.weight, 1) as weight, coalesce(u.max_running, settings.max_running_per_user) as max_running,
            sum(coalesce(u.weight, 1)) over () as weights, count(*) over () as turns
        from krilin.turns(of_queue, turn, turn_left > 0, least(visits_max, most + 1)) t
        left join krilin.queue_users u on has_users and u.queue = of_queue and u.user_id = t.line
        order by t.nth
    loop
        visits := who.turns;
        next_turn := who.line;
        quota := case when who.nth = 1 and turn_left > 0 and who.turns > 1 then turn_left
                 else who.weight * ceil(most::float8 / who.weights) end;
        user_limit := quota; user_units := units; user_taken := 0; user_spent := 0;
        if who.line <> krilin.line(null) then
            if who.max_running is not null then
                runs := coalesce(runs, krilin.running(of_queue));
                user_limit := least(quota, who.max_running - coalesce((runs ->> ('user:' || who.line))::integer, 0));
                held := held or user_limit < quota;
            end if;
            if settings.user_rate_units is not null then
                user_units := least(units, krilin.units_left(
                    of_queue, 'user:' || who.line, settings.user_rate_units, settings.user_rate_period, moment));
            end if;
        end if;
        user_room := least(user_limit, room);
        if user_room > 0 and coalesce(user_units > 0, true) then
            -- As many lanes as it can take, and as many more as can be at their limit.
            for line in
                select * from krilin.lanes(
                    of_queue, who.line, user_room + cardinality(busy_lanes), who.lane, who.rank, who.seq)
            loop
                exit when user_room <= 0 or user_units <= 0;
                lane_room := user_room; lane_units := user_units;
                if line.key is not null then
                    runs := coalesce(runs, krilin.running(of_queue));
                    lane_room := least(user_room, coalesce(
                        (select k.max_running from krilin.queue_keys k where has_keys and k.queue = of_queue and k.key = line.key),
                        -- Jobs of one schedule that wait for each other.
                        case when line.key not like 'schedule:%' then settings.max_running_per_key end, 1) - coalesce((runs ->> ('key:' || line.key))::integer, 0));
                    if settings.key_rate_units is not null then
                        lane_units := least(user_units, krilin.units_left(
                            of_queue, 'key:' || line.key, settings.key_rate_units, settings.key_rate_period, moment));
                    end if;
                    held := held or lane_room < user_room;
                    continue when lane_room <= 0 or lane_units <= 0;
                end if;
                select t.picked, t.taken, t.spent into rows, taken, spent
                from krilin.take(
                    of_queue, who.line, line.lane, line.rank, line.seq, lane_room, lane_units, cost_max) t;
                continue when taken = 0;
                picked := picked || rows;
                room := room - taken; user_room := user_room - taken; user_taken := user_taken + taken;
                units := units - spent; user_units := user_units - spent; user_spent := user_spent + spent;
                if line.key is not null then
                    runs := runs || jsonb_build_object('key:' || line.key, coalesce((runs ->> ('key:' || line.key))::integer, 0) + taken);
                    if settings.key_rate_units is not null then
                        perform krilin.spend(of_queue, 'key:' || line.key, spent, settings.key_rate_period, moment);
                    end if;
                end if;
            end loop;
        end if;
        if user_spent > 0 and settings.user_rate_units is not null and who.line <> krilin.line(null) then
            perform krilin.spend(of_queue, 'user:' || who.line, user_spent, settings.user_rate_period, moment);
        end if;
        units_taken := units_taken + user_spent;
        more := more or user_taken > 0 and user_taken >= quota;
        next_left := case when room <= 0 then greatest(quota - user_taken, 0) else 0 end;
        exit when room <= 0 or units <= 0;
    end loop;
    more := more or room <= 0 or visits >= least(visits_max, most + 1);
    if units_taken > 0 and settings.rate_units is not null and settings.rate_exact then
        perform krilin.spend(of_queue, '', units_taken, settings.rate_period, moment);
    end if;
end $$;
comment on function krilin.pick(text, integer, uuid, integer, bigint) is 'Picks what a claim may take of a queue with users, keys or limits; see the invariant above it.';
