-- Schedules and the ledger of their fires. A schedule costs nothing while it is not due: it is one row, found by due_at.

create table krilin.schedules (
    id uuid primary key,
    user_id uuid references krilin.users (id) on delete cascade,
    app_id text,
    name text not null,
    origin text not null,
    kind text not null,
    args jsonb not null,
    cron text,
    every_ms bigint,
    once_at timestamptz,
    timezone text not null,
    anchor_at timestamptz not null,
    starts_at timestamptz,
    ends_at timestamptz,
    jitter_ms bigint not null default 0,
    catch_up text not null default 'one',
    overlap text not null default 'skip',
    max_runs integer,
    pause_after integer,
    state text not null default 'active',
    reason text,
    next_at timestamptz,
    due_at timestamptz,
    skip_until timestamptz,
    missed integer not null default 0,
    run_count integer not null default 0,
    failure_count integer not null default 0,
    last_nominal_at timestamptz,
    last_fired_at timestamptz,
    last_job_id uuid,
    last_job_judged boolean not null default false,
    tzdata text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint schedules_name_key unique nulls not distinct (user_id, app_id, name),
    constraint schedules_name_check check (length(name) between 1 and 100),
    constraint schedules_origin_check check (origin in ('manifest', 'app', 'user', 'operator')),
    constraint schedules_when_check check (num_nonnulls(cron, every_ms, once_at) = 1),
    constraint schedules_every_check check (every_ms >= 1000),
    constraint schedules_catch_up_check check (catch_up in ('none', 'one', 'all')),
    constraint schedules_overlap_check check (overlap in ('skip', 'queue')),
    constraint schedules_state_check check (state in ('active', 'paused', 'parked', 'off', 'ended')),
    constraint schedules_due_check check (state <> 'active' or due_at is not null)
) with (
    -- Each fire leaves a dead row (due_at is indexed, so no update is HOT): vacuum by their number, however many
    -- schedules only wait.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 100000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);
comment on table krilin.schedules is 'What makes a job again and again, or once at a time of its own.';
comment on column krilin.schedules.name is 'What its maker calls it; of one user and app, one name is one schedule.';
comment on column krilin.schedules.origin is 'Who made it: the manifest of an app, its code, its user, or the operator.';
comment on column krilin.schedules.timezone is 'An IANA zone, or `user` for the zone of its user at any time.';
comment on column krilin.schedules.anchor_at is 'From when on the periods of every_ms are counted.';
comment on column krilin.schedules.pause_after is 'So many dead jobs in a row pause it; null for never.';
comment on column krilin.schedules.reason is 'Why it is paused, parked, off or ended.';
comment on column krilin.schedules.next_at is 'The nominal fire that comes next.';
comment on column krilin.schedules.due_at is 'When to look at it: next_at and its jitter, or at once when its zone has changed.';
comment on column krilin.schedules.skip_until is 'Nominal fires up to here fell into a pause.';
comment on column krilin.schedules.missed is 'Missed fires that the next job is told of.';
comment on column krilin.schedules.last_job_judged is 'Whether failure_count knows already how that job ended.';
comment on column krilin.schedules.tzdata is 'The release of the zone data by which next_at was reckoned.';
create index schedules_due_idx on krilin.schedules (due_at) where state = 'active';

create table krilin.occurrences (
    schedule_id uuid not null,
    nominal_at timestamptz not null,
    due_at timestamptz not null,
    fired_at timestamptz not null,
    outcome text not null,
    reason text,
    late_ms bigint not null,
    missed integer not null default 0,
    job_id uuid,
    primary key (schedule_id, nominal_at),
    constraint occurrences_outcome_check check (outcome in ('fired', 'coalesced', 'skipped')),
    constraint occurrences_job_check check ((outcome = 'fired') = (job_id is not null))
) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
comment on table krilin.occurrences is 'The ledger: every nominal fire and what it came to. Its key is the identity of a fire; it commits with the job. Retention forgets old rows.';
comment on column krilin.occurrences.nominal_at is 'When it was meant to fire. A fire by hand has the instant of the hand.';
comment on column krilin.occurrences.fired_at is 'When it was judged.';
comment on column krilin.occurrences.late_ms is 'How long after it was due (jitter included) it was judged.';
comment on column krilin.occurrences.missed is 'Fires before this one that its job makes up for or replaces.';
create index occurrences_fired_idx on krilin.occurrences using brin (fired_at);

create table krilin.scheduler (
    one boolean primary key default true check (one),
    holder uuid,
    held_until timestamptz not null default '-infinity',
    tzdata text not null default ''
);
insert into krilin.scheduler default values;
comment on table krilin.scheduler is 'Who fires first: a lease that only saves work, since any number of schedulers is safe.';
comment on column krilin.scheduler.tzdata is 'The newest zone data by which all schedules were reckoned.';
grant select, update on krilin.scheduler to krilin_runtime;

-- A user who moves takes their schedules along: the next look reckons them anew. In the database, so that no way of
-- changing a user's zone can forget it.
create function krilin.move_schedules() returns trigger language plpgsql set search_path = krilin, pg_temp as $$
begin
    update krilin.schedules
    set state = 'active', reason = null, due_at = krilin.now(), next_at = coalesce(next_at, krilin.now() + interval '1 day')
    where user_id = new.id and timezone = 'user' and cron is not null and state in ('active', 'parked');
    perform pg_notify('krilin_schedules', '');
    return null;
end $$;
comment on function krilin.move_schedules() is 'Makes the schedules of a user whose zone has changed due for another look.';
create trigger users_move_schedules after update of timezone on krilin.users
for each row when (old.timezone is distinct from new.timezone) execute function krilin.move_schedules();

-- The schedulers sleep until the earliest schedule they know of. They hear of others from the transaction that makes them,
-- so that no maker can forget it, or die between the two. NOTIFY holds a lock while it commits; schedules are made seldom,
-- and what a scheduler itself writes sets no origin.
create function krilin.tell_schedulers() returns trigger language plpgsql set search_path = krilin, pg_temp as $$
begin
    perform pg_notify('krilin_schedules', '');
    return null;
end $$;
comment on function krilin.tell_schedulers() is 'Tells the schedulers, at commit, that something may be due sooner.';
create trigger schedules_tell after insert or update of origin on krilin.schedules
for each statement execute function krilin.tell_schedulers();
