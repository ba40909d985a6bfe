-- due_alone: the same as due for given schedules, after one of a batch could not be written.
--
-- Invariant: as in due. Those that are no longer due are given too; a look at them changes nothing.
-- Rides on schedules_pkey.
with due as materialized (
    select *
    from krilin.schedules
    where id = any($1) and state = 'active'
    order by due_at
    for update skip locked
)
select s.id, s.user_id, s.app_id, s.name, s.kind, s.args::text as args, s.cron, s.every_ms, s.once_at, s.timezone,
    u.timezone as user_zone, s.anchor_at, s.starts_at, s.ends_at, s.jitter_ms, s.catch_up, s.overlap, s.max_runs,
    s.pause_after, s.next_at, s.last_nominal_at, s.skip_until, s.missed, s.run_count, s.failure_count,
    exists (select from krilin.jobs j where j.id = s.last_job_id) as live,
    case when s.pause_after is not null and not s.last_job_judged then (
        select h.state from krilin.job_history h
        where h.id = s.last_job_id and h.finished_at >= s.last_fired_at limit 1
    ) end as ended,
    (select i.state from krilin.app_installations i where i.user_id = s.user_id and i.app_id = s.app_id) as installation,
    krilin.now() as now
from due s
left join krilin.users u on u.id = s.user_id
order by s.due_at
