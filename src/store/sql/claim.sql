-- claim: ends the jobs of the batch before, then takes the next batch. One statement, one commit.
--
-- Invariants: a job ends only under its present lease token, and leaves `jobs` for `job_history` in the same statement;
-- each claimed job gets a token of its own; claiming counts the attempt.
-- A queue with users, concurrency keys or limits is claimed from by turns: krilin.pick (migration 0005) says which rows, and
-- the plain list stays empty. `lanes` says that this is needed; a plain claim then takes only what has neither user nor key,
-- and of a queue with limits nothing. So a pause or a limit holds for every claim that begins after its commit.
-- Rides on jobs_pkey (ending) and jobs_ready_idx (taking: the scan is already in order and stops at the limit). The rows
-- taken are updated by ctid, so no second index look-up and no plan but this one.
-- The planner takes a list behind a `limit` for one row, and so looks each job up by its key. Without it, it takes the list
-- for ten and, when the queue was empty or never analyzed, reads all jobs and compares each with every entry of the list.
-- Gives at least one row. `ended` is null when every ending found its job, else the ids that did.
with clock as materialized (select krilin.now() as now),
ending as (
    delete from krilin.jobs j
    using (
        select * from unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[])
            as i(id, token, state, result, error)
        limit cardinality($5)
    ) as i
    where j.id = i.id and j.lease_token = i.token
    returning j.*, i.state as final_state, i.result, i.error
),
history as (
    insert into krilin.job_history
        (id, user_id, app_id, kind, queue, args, state, priority, attempt, max_attempts, run_at, due_at, worker_id,
         started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, result, error, created_at, finished_at)
    select
        id, user_id, app_id, kind, queue, args, final_state, priority, attempt, max_attempts, run_at, due_at, worker_id,
        started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, result::jsonb, error::jsonb, created_at,
        clock.now
    from ending, clock
),
settings as materialized (
    select coalesce(bool_or(q.restricted), false) as restricted from krilin.queues q where q.name in ($1, 'all')
),
-- Counting the endings first makes their places free for the pick.
picked as materialized (
    select p.* from krilin.pick($1, ($2 + 0 * (select count(*) from ending))::integer, $11, $12, $13) p where $10
),
claimed as (
    update krilin.jobs j
    set state = 'running', attempt = j.attempt + 1, lease_token = gen_random_uuid(),
        lease_until = clock.now + $4, worker_id = $3, started_at = clock.now, parked_reason = null
    from clock
    where j.ctid = any (array(
        select r.ctid from krilin.jobs r
        where r.state = 'ready' and r.queue = $1 and r.user_id is null and r.concurrency_key is null
        order by r.rank, r.seq
        limit case when $10 or (select s.restricted from settings s) then 0 else $2 end
        for update skip locked
    ) || (select p.picked from picked p))
    returning j.id, j.lease_token, j.kind, j.user_id, j.app_id, j.args::text as args, j.attempt, j.max_attempts,
        j.last_error ->> 'code' as last_code, j.created_at, j.due_at, j.trace_parent, j.cause, j.awaited,
        j.rank, j.seq, j.run_at, j.started_at,
        -- What few jobs have comes as one value, so that the others pay for one null.
        case when j.snoozes > 0 or j.stop_at is not null or j.parent_id is not null or j.children_when is not null then
            jsonb_build_object('snoozes', j.snoozes, 'stop_reason', j.stop_reason, 'parent_id', j.parent_id,
                'stop_ms', (extract(epoch from j.stop_at - clock.now) * 1000)::bigint, 'children', j.children_when)::text
        end as ties
)
select claimed.*, ended.ids as ended, flow.*
from (
    select case when (select count(*) from ending) < cardinality($5) then array(select id from ending) end as ids
) as ended
cross join (
    select s.restricted or exists (
            select from krilin.jobs w
            where w.state = 'ready' and w.queue = $1 and (w.user_id is not null or w.concurrency_key is not null)
        ) as lanes,
        cardinality(p.picked) as picked, p.next_turn, p.next_left, p.more, p.held, p.units_taken, p.share, p.share_period
    from settings s left join picked p on true
) as flow
left join claimed on true
