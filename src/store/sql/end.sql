-- end: ends the jobs of a batch.
--
-- Invariant: a job ends only under its present lease token, and leaves `jobs` for `job_history` in the same statement.
-- Of the lists that are mostly alike, an empty one stands for `done`, for no result and for no error.
-- Rides on jobs_pkey, and must look each job up by it, also by a plan made where the planner takes `jobs` for empty (after
-- each vacuum that found it so), or that one statement reads all jobs and compares each with every entry of the list: 10 s for
-- 60,000 jobs and a list of 1,000. So the list stands behind a `limit`, for which the planner takes it for one row and not for
-- ten; and ids are compared by `any (array[…])`, which no merge join knows: reading all jobs in the order of their ids is then
-- good for nothing.
-- Gives one row: null when every ending found its job, else the ids that did.
with clock as materialized (select krilin.now() as now),
ending as (
    delete from krilin.jobs j
    using (
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])
            as i(id, token, state, result, error)
        limit cardinality($1)
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
)
select case when (select count(*) from ending) < cardinality($1) then array(select id from ending) end as ended
