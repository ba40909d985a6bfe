-- schedule: writes schedules, new or in place of those that have their names.
--
-- Invariants: nobody takes another maker's name but a manifest (no row comes back). One name is one schedule, whose id (and so its jitter and its ledger) never changes. A clockwork that stays
-- as it was keeps its next fire, so that publishing an app neither loses a fire nor repeats one. What a person paused
-- stays paused when a manifest comes again; what its maker writes anew begins anew.
-- Rides on schedules_name_key.
with clock as materialized (select krilin.now() as now)
insert into krilin.schedules as s
    (id, user_id, app_id, name, origin, kind, args, cron, every_ms, once_at, timezone, anchor_at, starts_at, ends_at,
     jitter_ms, catch_up, overlap, max_runs, pause_after, state, reason, next_at, due_at, tzdata, created_at, updated_at)
select i.id, i.user_id, i.app_id, i.name, i.origin, i.kind, i.args, i.cron, i.every_ms, i.once_at, i.timezone, i.anchor_at,
    i.starts_at, i.ends_at, i.jitter_ms, i.catch_up, i.overlap, i.max_runs, i.pause_after, i.state, i.reason, i.next_at,
    i.due_at, i.tzdata, clock.now, clock.now
from clock,
    unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::text[], $9::bigint[],
           $10::timestamptz[], $11::text[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::bigint[],
           $16::text[], $17::text[], $18::integer[], $19::integer[], $20::text[], $21::text[], $22::timestamptz[],
           $23::timestamptz[], $24::text[])
    as i(id, user_id, app_id, name, origin, kind, args, cron, every_ms, once_at, timezone, anchor_at, starts_at, ends_at,
         jitter_ms, catch_up, overlap, max_runs, pause_after, state, reason, next_at, due_at, tzdata)
on conflict on constraint schedules_name_key do update
set origin = excluded.origin, kind = excluded.kind, args = excluded.args, cron = excluded.cron,
    every_ms = excluded.every_ms, once_at = excluded.once_at, timezone = excluded.timezone,
    starts_at = excluded.starts_at, ends_at = excluded.ends_at, jitter_ms = excluded.jitter_ms,
    catch_up = excluded.catch_up, overlap = excluded.overlap, max_runs = excluded.max_runs,
    pause_after = excluded.pause_after, tzdata = excluded.tzdata, updated_at = excluded.updated_at,
    run_count = case when excluded.origin = 'manifest' then s.run_count else 0 end,
    failure_count = case when excluded.origin = 'manifest' then s.failure_count else 0 end,
    anchor_at = case when s.every_ms = excluded.every_ms then s.anchor_at else excluded.anchor_at end,
    state = case when excluded.origin = 'manifest' and s.state = 'paused' then s.state else excluded.state end,
    reason = case when excluded.origin = 'manifest' and s.state = 'paused' then s.reason else excluded.reason end,
    (next_at, due_at) = (
        select
            case when kept then s.next_at else excluded.next_at end,
            case when excluded.origin = 'manifest' and s.state = 'paused' or excluded.state <> 'active' then null
                when kept then s.due_at else excluded.due_at end
        from (
            select s.state = 'active' and (s.cron, s.every_ms, s.once_at, s.timezone, s.starts_at, s.ends_at)
                is not distinct from (excluded.cron, excluded.every_ms, excluded.once_at, excluded.timezone,
                                      excluded.starts_at, excluded.ends_at) as kept
        ) as clockwork
    )
where s.origin = excluded.origin or excluded.origin = 'manifest'
returning s.id, s.next_at
