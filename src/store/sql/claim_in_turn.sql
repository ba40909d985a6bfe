-- claim_in_turn: ends the jobs of the batch before, then takes the next batch of a queue with users, concurrency keys or
-- limits. One statement, one commit.
--
-- Invariants: those of end.sql and claim.sql; which rows are taken, krilin.pick says (migration 0005). What ends makes its
-- places free for the pick of the same statement. So a pause or a limit holds for every claim that begins after its commit.
-- Rides on jobs_pkey (ending; for the `limit` and the `any` see end.sql) and on what the pick rides on. The rows taken are
-- updated by ctid.
-- Gives at least one row. `ended` is null when every ending found its job, else the ids that did.
with clock as materialized (select krilin.now() as now, gen_random_uuid() as token),
ending as (
    delete from krilin.jobs j
    using (
        select * from unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[])
            as i(id, token, state, result, error)
        limit cardinality($5)
    ) as i
    where j.id = any (array[i.id]) and j.lease_token = i.token
    returning j.id, j.user_id, j.app_id, j.kind, j.queue, j.args, j.priority, j.attempt, j.max_attempts, j.run_at,
        j.due_at, j.worker_id, j.started_at, j.unique_key, j.concurrency_key, j.parent_id, j.cause, j.trace_parent,
        j.progress, j.created_at, coalesce(i.state, 'done') as final_state, i.result, i.error
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
-- Counting the endings first makes their places free for the pick.
picked as materialized (
    select p.* from krilin.pick($1, ($2 + 0 * (select count(*) from ending))::integer, $10, $11, $12) p
),
claimed as (
    update krilin.jobs j
    set state = 'running', attempt = j.attempt + 1, lease_token = clock.token,
        lease_until = clock.now + $4, worker_id = $3, started_at = clock.now, parked_reason = null
    from clock
    where j.ctid = any (array(select unnest(p.picked) from picked p))
    returning j.id, j.lease_token, j.kind, j.user_id, j.app_id, j.args::text as args, j.attempt, j.max_attempts,
        j.last_error ->> 'code' as last_code, j.created_at, j.due_at, j.trace_parent, j.cause, j.awaited,
        j.rank, j.seq, j.run_at, j.started_at,
        -- What few jobs have comes as one value, so that the others pay for one null.
        case when j.snoozes > 0 or j.stop_at is not null or j.parent_id is not null or j.children_when is not null then
            jsonb_build_object('snoozes', j.snoozes, 'stop_reason', j.stop_reason, 'parent_id', j.parent_id,
                'stop_ms', (extract(epoch from j.stop_at - clock.now) * 1000)::bigint, 'children', j.children_when)::text
        end as ties
)
select claimed.*, flow.*
from (
    -- Jobs of a user were seen: no need to look once more past all that have ended.
    select cardinality(p.picked) > 0 and p.next_turn <> krilin.line(null)
        or exists (select from krilin.queues q where q.restricted and q.name in ($1, 'all')) or exists (
            select from krilin.jobs w
            where w.state = 'ready' and w.queue = $1 and (w.user_id is not null or w.concurrency_key is not null)
        ) as lanes,
        case when (select count(*) from ending) < cardinality($5) then array(select id from ending) end as ended,
        cardinality(p.picked) as picked, p.next_turn, p.next_left, p.more, p.held, p.units_taken, p.share, p.share_period
    from picked p
) as flow
left join claimed on true
