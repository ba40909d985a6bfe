-- Execution: jobs that are stopped, that report, that wait for others, and that are taken up again.

create index jobs_stop_idx on krilin.jobs (stop_at) where stop_at is not null;
create index jobs_parent_idx on krilin.jobs (parent_id) where parent_id is not null;
create index job_history_parent_idx on krilin.job_history (parent_id, id) where parent_id is not null;
create index job_history_dead_idx on krilin.job_history (finished_at) where state = 'dead';

-- However a job leaves `jobs`, the one that waits for it is freed in the same transaction. The lock lets two last children
-- end one after the other; the statement after it sees what the first has committed, so one of them finds nobody left.
create function krilin.child_ended() returns trigger language plpgsql as $$
begin
    perform from krilin.jobs where id = old.parent_id and state = 'parked' for no key update;
    if found and not exists (select from krilin.jobs where parent_id = old.parent_id) then
        update krilin.jobs
        set state = case when run_at > krilin.now() then 'scheduled' else 'ready' end, parked_reason = null
        where id = old.parent_id and state = 'parked';
    end if;
    return null;
end $$;
comment on function krilin.child_ended() is 'Frees a parked job when the last job that names it as its parent has left the table.';
create trigger jobs_child_ended after delete on krilin.jobs
    for each row when (old.parent_id is not null) execute function krilin.child_ended();

create table krilin.job_logs (
    id bigint generated always as identity primary key,
    job_id uuid not null,
    attempt integer not null,
    lines jsonb not null,
    bytes integer not null,
    logged_at timestamptz not null
);
comment on table krilin.job_logs is 'What handlers logged: a row for each batch of lines, written while the attempt runs or with its end, never one per line.';
comment on column krilin.job_logs.lines is 'A list of {level, message, fields}, in their order.';
comment on column krilin.job_logs.bytes is 'The length of the lines as text; all batches of a job together are capped.';
create index job_logs_job_idx on krilin.job_logs (job_id, id);
create index job_logs_logged_idx on krilin.job_logs using brin (logged_at);

create table krilin.redrives (
    id bigint generated always as identity primary key,
    job_id uuid not null,
    dead_since timestamptz not null,
    attempt integer not null,
    error jsonb,
    redriven_at timestamptz not null,
    redriven_by text not null
);
comment on table krilin.redrives is 'Dead letters that were taken up again: the job keeps its id, and what it had died of stands here.';
comment on column krilin.redrives.redriven_by is 'Who did it: a user''s id, or `command line`.';
create index redrives_job_idx on krilin.redrives (job_id);
create index redrives_redriven_idx on krilin.redrives using brin (redriven_at);
