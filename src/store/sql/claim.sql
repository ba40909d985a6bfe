-- claim: takes the next batch of a queue's jobs that have neither user nor concurrency key.
--
-- Invariants: no two claims give the same token (the jobs of one share it: randomness costs as much as an index entry);
-- claiming counts the attempt. Of a queue with limits nothing is taken. So a pause or a limit holds for every claim that
-- begins after its commit.
-- Rides on jobs_ready_idx: the scan is already in order and stops at the limit. The rows taken are updated by ctid, so no
-- second index look-up and no plan but this one. It looks only behind the rank $5 and the seq $6. Gives a row for each job.
with clock as materialized (select krilin.now() as now, gen_random_uuid() as token),
settings as materialized (
    select coalesce(bool_or(q.restricted), false) as restricted from krilin.queues q where q.name in ($1, 'all')
)
update krilin.jobs j
set state = 'running', attempt = j.attempt + 1, lease_token = clock.token,
    lease_until = clock.now + $4, worker_id = $3, started_at = clock.now, parked_reason = null
from clock
where j.ctid = any (array(
    select r.ctid from krilin.jobs r
    where r.state = 'ready' and r.queue = $1 and r.user_id is null and r.concurrency_key is null
        and (r.rank, r.seq) > ($5, $6)
    order by r.rank, r.seq
    limit case when (select s.restricted from settings s) then 0 else $2 end
    for update skip locked
))
returning j.id, j.lease_token, j.kind, j.user_id, j.app_id, j.args::text as args, j.attempt, j.max_attempts,
    j.last_error ->> 'code' as last_code, j.created_at, j.due_at, j.trace_parent, j.cause, j.awaited,
    j.rank, j.seq, j.run_at, j.started_at,
    -- What few jobs have comes as one value, so that the others pay for one null.
    case when j.snoozes > 0 or j.stop_at is not null or j.parent_id is not null or j.children_when is not null then
        jsonb_build_object('snoozes', j.snoozes, 'stop_reason', j.stop_reason, 'parent_id', j.parent_id,
            'stop_ms', (extract(epoch from j.stop_at - clock.now) * 1000)::bigint, 'children', j.children_when)::text
    end as ties
