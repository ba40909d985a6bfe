-- why: everything that bears on when a live job starts, as one object; no row for a job that is not live.
--
-- Invariant: the figures are those that krilin.pick judges by, of one moment.
-- Rides on jobs_pkey, jobs_running_idx, jobs_ready_idx, jobs_lanes_idx and rate_spent_idx. Counts of waiting jobs stop at $3.
with j as materialized (
    select * from krilin.jobs where id = $1 and ($2::uuid is null or user_id = $2)
),
runs as materialized (
    select count(*) as everything,
        count(*) filter (where r.queue = j.queue) as of_queue,
        count(*) filter (where r.queue = j.queue and r.user_id = j.user_id) as of_user,
        count(*) filter (where r.queue = j.queue and r.concurrency_key = j.concurrency_key) as of_key
    from j left join krilin.jobs r on r.state = 'running'
),
seen as materialized (
    select w.queues, w.kinds from krilin.workers w
    where w.seen_at > krilin.now() - $4::float8 * interval '1 second'
),
front as materialized (
    (select r.run_at from j join krilin.jobs r
         on r.state = 'ready' and r.queue = j.queue and r.user_id is null and r.concurrency_key is null
     where j.user_id is null and j.concurrency_key is null and j.state = 'ready'
         and (r.rank, r.seq) < (j.rank, j.seq)
     order by r.rank, r.seq limit $3)
    union all
    (select r.run_at from j join krilin.jobs r
         on r.state = 'ready' and r.queue = j.queue and (r.user_id is not null or r.concurrency_key is not null)
             and krilin.line(r.user_id) = krilin.line(j.user_id) and krilin.lane(r.concurrency_key) = krilin.lane(j.concurrency_key)
     where (j.user_id is not null or j.concurrency_key is not null) and j.state = 'ready'
         and (r.rank, r.seq) < (j.rank, j.seq)
     order by r.rank, r.seq limit $3)
)
select jsonb_build_object(
    'now', krilin.now(), 'state', j.state, 'kind', j.kind, 'queue', j.queue, 'run_at', j.run_at, 'key', j.concurrency_key,
    'attempt', j.attempt, 'error', j.last_error ->> 'message', 'started_at', j.started_at, 'worker_id', j.worker_id,
    'cost', coalesce(j.cost, 1),
    'paused', case when q.paused_at is not null then jsonb_build_object('by', q.paused_by, 'reason', q.paused_reason) end,
    'all_paused', case when a.paused_at is not null then jsonb_build_object('by', a.paused_by, 'reason', a.paused_reason) end,
    'all_limit', jsonb_build_object('max', a.max_running, 'running', runs.everything),
    'queue_limit', jsonb_build_object('max', q.max_running, 'running', runs.of_queue),
    'user_limit', jsonb_build_object(
        'max', case when j.user_id is not null then coalesce(u.max_running, q.max_running_per_user) end, 'running', runs.of_user),
    'key_limit', jsonb_build_object(
        'max', case when j.concurrency_key is not null then coalesce(k.max_running, q.max_running_per_key, 1) end,
        'running', runs.of_key),
    'rates', (
        select coalesce(jsonb_agg(jsonb_build_object('of', r.name, 'units', r.units,
            'left', krilin.units_left(j.queue, r.subject, r.units, r.period, krilin.now()),
            'free_at', (select min(s.at) + r.period from krilin.rate_spent s
                        where s.queue = j.queue and s.subject = r.subject and s.at > krilin.now() - r.period))), '[]')
        from (values
            ('queue', '', case when q.rate_exact then q.rate_units end, q.rate_period),
            ('user', 'user:' || j.user_id, q.user_rate_units, q.user_rate_period),
            ('key', 'key:' || j.concurrency_key, q.key_rate_units, q.key_rate_period)) as r(name, subject, units, period)
        where r.units is not null and r.subject is not null),
    'ahead', (select count(*) from front), 'head_at', (select f.run_at from front f limit 1),
    'users', (select count(*) from krilin.turns(j.queue, krilin.line(j.user_id), false, 1000) t
              where t.line <> krilin.line(j.user_id)),
    'workers', (select count(*) from seen s where j.queue = any (s.queues)),
    'able', (select count(*) from seen s where j.queue = any (s.queues) and j.kind = any (s.kinds)),
    'children', case when j.state = 'parked' then (
        select count(*) from krilin.jobs c where c.parent_id = j.id) end)
from j
cross join runs
left join krilin.queues q on q.name = j.queue
left join krilin.queues a on a.name = 'all'
left join krilin.queue_users u on u.queue = j.queue and u.user_id = j.user_id
left join krilin.queue_keys k on k.queue = j.queue and k.key = j.concurrency_key
