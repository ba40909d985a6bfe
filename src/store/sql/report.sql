-- report: what a handler said of its progress, and the lines it has logged since the report before.
--
-- Invariants: only under the job's present lease token, so a worker that lost the job changes nothing of it; the lines of a
-- job, all attempts together, are capped: a batch that would go past the cap is left out.
-- Rides on jobs_pkey (for the `any` see end.sql) and job_logs_job_idx.
with held as materialized (
    select id, attempt from krilin.jobs where id = $1 and lease_token = $2
),
progress as (
    update krilin.jobs j set progress = $3::jsonb
    from held
    where $3::text is not null and j.id = any (array[held.id]) and j.lease_token = $2
)
insert into krilin.job_logs (job_id, attempt, lines, bytes, logged_at)
select held.id, held.attempt, $4::jsonb, $5, krilin.now()
from held
where $4::text is not null
    and $5 + (select coalesce(sum(bytes), 0) from krilin.job_logs where job_id = $1) <= $6
