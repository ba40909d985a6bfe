-- stop: ends jobs that wait though their time is over: past their deadline, or cancelled while they ran and put back since.
--
-- Invariant: a job that runs is not touched, and one that is being claimed is skipped; its worker knows when to stop.
-- Rides on jobs_stop_idx.
with clock as materialized (select krilin.now() as now),
ending as (
    delete from krilin.jobs j
    where j.ctid = any (array(
        select s.ctid from krilin.jobs s, clock
        where s.stop_at <= clock.now and s.state <> 'running'
        order by s.stop_at
        limit $1
        for update of s skip locked
    ))
    returning j.*
),
history as (
    insert into krilin.job_history
        (id, user_id, app_id, kind, queue, args, state, priority, attempt, max_attempts, run_at, due_at, worker_id,
         started_at, unique_key, concurrency_key, parent_id, cause, trace_parent, progress, error, created_at, finished_at)
    select
        id, user_id, app_id, kind, queue, args, case stop_reason when 'cancelled' then 'cancelled' else 'dead' end, priority,
        attempt, max_attempts, run_at, due_at, worker_id, started_at, unique_key, concurrency_key, parent_id, cause,
        trace_parent, progress, case stop_reason when 'cancelled' then $3::jsonb else $2::jsonb end, created_at, clock.now
    from ending, clock
)
select id, awaited from ending
