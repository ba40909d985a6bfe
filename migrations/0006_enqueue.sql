-- Enqueuing: what the database must know to take a job by itself, from any client, in the client's own transaction.

create table kinds (
    kind text primary key,
    queue text not null,
    priority smallint not null,
    max_attempts integer not null,
    asked_by text not null,
    deadline interval,
    concurrency_key text,
    cost integer not null default 1,
    updated_at timestamptz not null
);
comment on table kinds is 'The kinds of jobs and what their policies say of an enqueue. Written by krilin as it starts and by `krilin db migrate`; changed in the policies, never here.';
comment on column kinds.deadline is 'How long after it is due a job must have ended.';
comment on column kinds.asked_by is 'Who may ask over HTTP: user or system. In SQL, whoever may call krilin.enqueue may ask for any.';

create table unique_periods (
    key text primary key,
    job_id uuid not null,
    taken_at timestamptz not null,
    until timestamptz not null
);
comment on table unique_periods is 'The latest job of each unique key that has a period. It holds the key in the period in which it was enqueued, while it is live or done.';
comment on column unique_periods.until is 'From then on the row says nothing, and retention deletes it.';
create index unique_periods_until_idx on unique_periods (until);

-- place_job: one new job that has a unique key, an idempotency key, both or none.
--
-- Invariants: at most one live job has a unique key (jobs_unique_key); with a period, enqueues of one key stand in line
-- for its row of unique_periods, so at most one job enqueued in a period is live or done. The idempotency record commits
-- with the job. A job that runs or has ended is not touched.
-- `outcome` is created, kept, replaced or debounced; or one of those in which nothing was done: key_reused (the
-- idempotency key stands for another request), in_flight (another transaction has that key in its hands), key_elsewhere
-- (the unique key belongs to a waiting job of another kind, user or app).
-- Rides on idempotency_keys_unique, jobs_unique_key, unique_periods_pkey, jobs_pkey and job_history_id_idx.
create function krilin.place_job(
    new_id uuid, for_user uuid, for_app text, new_kind text, new_queue text, new_args jsonb, new_priority smallint,
    new_max_attempts integer, new_run_at timestamptz, delay interval, new_cause text, new_trace_parent text,
    new_awaited boolean, new_unique_key text, period interval, on_conflict text, max_wait interval,
    idempotency_key text, new_request_hash bytea, tell jsonb,
    new_concurrency_key text default null, new_cost integer default null,
    out job_id uuid, out outcome text, out state text, out replayed boolean, out told jsonb
) language plpgsql as $$
declare
    clock constant timestamptz := krilin.now();
    due constant timestamptz := coalesce(new_run_at, clock + delay);
    period_s constant numeric := extract(epoch from period);
    period_begin constant timestamptz := to_timestamp(floor(extract(epoch from clock) / period_s) * period_s);
    kept record;
    holder record;
    at_last timestamptz;
    opened boolean := false;
    held boolean;
begin
    job_id := new_id;
    state := 'pending';
    replayed := false;
    told := tell;
    if idempotency_key is not null then
        if not pg_try_advisory_xact_lock(hashtextextended('krilin.idempotency_keys ' || coalesce(for_user::text, '') || ' ' || idempotency_key, 0)) then
            outcome := 'in_flight';
            return;
        end if;
        if for_user is null then
            select k.request_hash, k.job_id, k.answer into kept
            from krilin.idempotency_keys k where k.user_id is null and k.key = idempotency_key;
        else
            select k.request_hash, k.job_id, k.answer into kept
            from krilin.idempotency_keys k where k.user_id = for_user and k.key = idempotency_key;
        end if;
        if found then
            if kept.request_hash <> new_request_hash then
                outcome := 'key_reused';
            else
                job_id := kept.job_id;
                outcome := kept.answer ->> 'outcome';
                state := kept.answer ->> 'state';
                told := kept.answer -> 'told';
                replayed := true;
            end if;
            return;
        end if;
    end if;

    -- More than one round only where a job ends, or retention forgets a period, in the very moment between two statements.
    for round in 1..5 loop
        held := false;
        if period is not null then
            insert into krilin.unique_periods (key, job_id, taken_at, until)
            values (new_unique_key, new_id, clock, period_begin + period)
            on conflict (key) do nothing;
            opened := found;
            if not opened then
                select u.job_id, u.taken_at into kept
                from krilin.unique_periods u where u.key = new_unique_key for update;
                continue when not found;
                if kept.taken_at >= period_begin then
                    -- One statement, one snapshot: the job is in one of the two.
                    select j.id, 'live' as state into holder from krilin.jobs j where j.id = kept.job_id
                    union all
                    select h.id, h.state from krilin.job_history h
                    where h.id = kept.job_id and h.finished_at >= kept.taken_at;
                    held := coalesce(holder.state = 'live', false);
                    if holder.state = 'done' then
                        job_id := holder.id;
                        outcome := 'kept';
                        state := 'done';
                        exit;
                    end if;
                end if;
            end if;
        end if;

        if not held then
            insert into krilin.jobs
                (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, cause,
                 trace_parent, awaited, concurrency_key, cost, unique_key, created_at)
            values
                (new_id, for_user, for_app, new_kind, new_queue, new_args,
                 case when due > clock then 'scheduled' else 'ready' end, new_priority, new_max_attempts,
                 coalesce(due, clock), due, new_cause, new_trace_parent, new_awaited, new_concurrency_key, new_cost,
                 new_unique_key, clock)
            on conflict (unique_key) where unique_key is not null do nothing;
            if found then
                outcome := 'created';
                exit;
            end if;
        end if;

        if on_conflict = 'keep' then
            select j.id, j.state into holder from krilin.jobs j where j.unique_key = new_unique_key;
        else
            select j.id, j.state, j.run_at, j.due_at, j.created_at,
                (j.kind, j.user_id, j.app_id) is distinct from (new_kind, for_user, for_app) as elsewhere
            into holder
            from krilin.jobs j where j.unique_key = new_unique_key for update;
        end if;
        continue when not found;
        job_id := holder.id;
        if on_conflict = 'keep' or holder.state = 'running' then
            outcome := 'kept';
            state := case holder.state when 'running' then 'running' else 'pending' end;
            exit;
        end if;
        if holder.elsewhere then
            outcome := 'key_elsewhere';
            exit;
        end if;
        at_last := coalesce(due, clock);
        if on_conflict = 'debounce' then
            at_last := least(at_last, holder.created_at + max_wait);
        end if;
        if holder.run_at > coalesce(holder.due_at, holder.created_at) then
            -- It waits for another attempt, or was told to come later; new arguments are no reason to hurry that.
            at_last := greatest(at_last, holder.run_at);
        end if;
        update krilin.jobs j
        set args = new_args, priority = new_priority, max_attempts = new_max_attempts, attempt = 0, last_error = null,
            run_at = at_last, due_at = at_last,
            state = case when j.state = 'parked' then 'parked' when at_last > clock then 'scheduled' else 'ready' end,
            cause = new_cause, trace_parent = new_trace_parent, awaited = j.awaited or new_awaited
        where j.id = holder.id;
        outcome := case on_conflict when 'replace' then 'replaced' else 'debounced' end;
        exit;
    end loop;

    if outcome is null then
        raise exception using errcode = 'serialization_failure',
            message = format('the job with the unique key %L came and went', new_unique_key), hint = 'Try again.';
    end if;
    if opened and outcome <> 'created' then
        delete from krilin.unique_periods u where u.key = new_unique_key;
    elsif period is not null and outcome = 'created' and not opened then
        update krilin.unique_periods u
        set job_id = new_id, taken_at = clock, until = greatest(u.until, period_begin + period)
        where u.key = new_unique_key;
    end if;
    if idempotency_key is not null and outcome <> 'key_elsewhere' then
        insert into krilin.idempotency_keys (user_id, key, request_hash, job_id, answer, created_at)
        values (for_user, idempotency_key, new_request_hash, job_id,
                jsonb_build_object('outcome', outcome, 'state', state, 'told', tell), clock);
    end if;
end $$;
comment on function krilin.place_job is 'Krilin''s own: places one job whose fields were checked. Clients call krilin.enqueue.';

create function krilin.concurrency_key(key_of text, kind text, app_id text, user_id uuid) returns text
language sql immutable parallel safe as $$
    select case key_of
        when 'kind' then kind
        when 'user' then kind || ' ' || coalesce(user_id::text, '')
        when 'app' then kind || ' ' || coalesce(app_id, '')
        when 'installation' then kind || ' ' || coalesce(app_id, '') || ' ' || coalesce(user_id::text, '')
    end
$$;
comment on function krilin.concurrency_key is 'The concurrency key that a kind''s policy asks for. Krilin computes the same itself.';

-- enqueue: one job, from any client, in the client's transaction: it is there if and only if that transaction commits.
create function krilin.enqueue(
    kind text,
    args jsonb default '{}',
    user_id uuid default null,
    app_id text default null,
    run_at timestamptz default null,
    delay interval default null,
    priority integer default null,
    max_attempts integer default null,
    unique_key text default null,
    unique_period interval default null,
    on_conflict text default 'keep',
    max_wait interval default null,
    idempotency_key text default null,
    trace_parent text default null,
    deadline interval default null,
    concurrency_key text default null,
    cost integer default null,
    children jsonb default null,
    children_when text default 'all_done',
    out job_id uuid,
    out outcome text
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    fields constant text[] := array['kind', 'app_id', 'args', 'run_at', 'delay', 'priority', 'max_attempts', 'deadline',
        'concurrency_key', 'cost', 'when', 'children'];
    policy krilin.kinds;
    child jsonb;
    child_id uuid;
    wrong text;
    hint text := 'jobs/README.md of Krilin describes the arguments.';
    placed record;
begin
    select k.* into policy from krilin.kinds k where k.kind = enqueue.kind;
    if not found then
        raise exception using errcode = 'invalid_parameter_value',
            message = format('there is no kind of job named %L', enqueue.kind),
            hint = coalesce(
                'There are ' || (select string_agg(k.kind, ', ' order by k.kind) from krilin.kinds k) || '.',
                'krilin writes the kinds down when it starts; it has not run on this database yet.');
    end if;
    if enqueue.user_id is not null and not exists (select from krilin.users u where u.id = enqueue.user_id) then
        raise exception using errcode = 'foreign_key_violation',
            message = format('there is no user %s', enqueue.user_id), hint = '`krilin user list` shows them.';
    end if;
    if enqueue.app_id is not null and not exists (select from krilin.apps a where a.id = enqueue.app_id) then
        raise exception using errcode = 'foreign_key_violation',
            message = format('there is no app %L', enqueue.app_id), hint = '`krilin app list` shows them.';
    end if;
    wrong := case
        when args is null then 'args is null; an empty object is {}'
        when octet_length(args::text) > 262144 then format('args has %s bytes; 262144 are allowed', octet_length(args::text))
        when run_at is not null and delay is not null then 'run_at and delay exclude each other'
        when deadline <= interval '0' then format('deadline is not positive: %s', deadline)
        when delay < interval '0' then format('delay is negative: %s', delay)
        when priority not between -100 and 100 then format('priority is from -100 to 100, not %s', priority)
        when max_attempts not between 1 and 100 then format('max_attempts is from 1 to 100, not %s', max_attempts)
        when cost not between 1 and 1000000000 then format('cost is from 1 to 1000000000, not %s', cost)
        when octet_length(concurrency_key) not between 1 and 255 then 'concurrency_key has 1 to 255 bytes'
        when children_when is null or children_when not in ('all_done', 'all_ended')
            then format('children_when is all_done or all_ended, not %L', children_when)
        when jsonb_typeof(children) <> 'array' then 'children is a list of jobs'
        when jsonb_array_length(children) not between 1 and 10000
            then format('children has 1 to 10000 jobs, not %s', jsonb_array_length(children))
        when children @? '$[*].children[*].children[*].children[*].children[*]'
            then 'children of children go 4 deep at most'
        when octet_length(unique_key) not between 1 and 255 then 'unique_key has 1 to 255 bytes'
        when octet_length(idempotency_key) not between 1 and 255 then 'idempotency_key has 1 to 255 bytes'
        when on_conflict is null or on_conflict not in ('keep', 'replace', 'debounce')
            then format('on_conflict is keep, replace or debounce, not %L', on_conflict)
        when unique_key is null and (unique_period is not null or on_conflict <> 'keep')
            then 'unique_period and on_conflict need a unique_key'
        when unique_period < interval '1 second' then format('unique_period is a second at least, not %s', unique_period)
        when on_conflict = 'debounce' and (delay is null or max_wait is null or max_wait < delay)
            then 'debounce needs a delay and a max_wait that is not shorter'
        when on_conflict <> 'debounce' and max_wait is not null then 'max_wait is for on_conflict => ''debounce'''
    end;
    if wrong is not null then
        raise exception using errcode = 'invalid_parameter_value', message = wrong, hint = hint;
    end if;
    placed := krilin.place_job(
        krilin.new_id(), enqueue.user_id, enqueue.app_id, enqueue.kind, policy.queue, args,
        coalesce(priority, policy.priority)::smallint, coalesce(max_attempts, policy.max_attempts), run_at, delay, 'sql',
        trace_parent, false, unique_key, unique_period, on_conflict, max_wait, idempotency_key,
        sha256(convert_to(jsonb_build_array(
            enqueue.kind, args, enqueue.app_id, run_at, delay, priority, max_attempts, unique_key, unique_period, on_conflict, max_wait,
            deadline, concurrency_key, cost, children, children_when
        )::text, 'UTF8')),
        null,
        coalesce(concurrency_key,
            krilin.concurrency_key(policy.concurrency_key, enqueue.kind, enqueue.app_id, enqueue.user_id)),
        nullif(coalesce(cost, policy.cost), 1));
    case placed.outcome
        when 'key_reused' then
            raise exception using errcode = 'unique_violation',
                message = format('the idempotency key %L came before with other arguments', idempotency_key),
                hint = 'Use a fresh key for another job.';
        when 'in_flight' then
            raise exception using errcode = 'lock_not_available',
                message = format('a transaction with the idempotency key %L is not over yet', idempotency_key),
                hint = 'Try again when it is.';
        when 'key_elsewhere' then
            raise exception using errcode = 'unique_violation',
                message = format('the unique key %L belongs to a waiting job of another kind, user or app', unique_key),
                hint = 'Use keys that begin with the kind.';
        else
            job_id := placed.job_id;
            outcome := placed.outcome;
            if placed.outcome <> 'created' or placed.replayed then
                return;
            end if;
            if coalesce(deadline, policy.deadline) is not null or children is not null then
                update krilin.jobs j
                set stop_at = coalesce(j.due_at, j.created_at) + coalesce(enqueue.deadline, policy.deadline),
                    stop_reason = case when coalesce(enqueue.deadline, policy.deadline) is not null then 'deadline' end,
                    state = case when children is not null then 'parked' else j.state end,
                    parked_reason = case when children is not null then 'children' end,
                    children_when = case when children is not null then enqueue.children_when end
                where j.id = placed.job_id;
            end if;
            for child in select c.value from jsonb_array_elements(children) c loop
                if jsonb_typeof(child) <> 'object' or child - fields <> '{}' then
                    raise exception using errcode = 'invalid_parameter_value',
                        message = format('a child is an object with the fields %s, not %s',
                            array_to_string(fields, ', '), left(child::text, 100)),
                        hint = hint;
                end if;
                select e.job_id into child_id from krilin.enqueue(
                    child ->> 'kind', coalesce(child -> 'args', '{}'), enqueue.user_id, child ->> 'app_id',
                    (child ->> 'run_at')::timestamptz, (child ->> 'delay')::interval, (child ->> 'priority')::integer,
                    (child ->> 'max_attempts')::integer, trace_parent => enqueue.trace_parent,
                    deadline => (child ->> 'deadline')::interval, concurrency_key => child ->> 'concurrency_key',
                    cost => (child ->> 'cost')::integer, children => child -> 'children',
                    children_when => coalesce(child ->> 'when', 'all_done')) e;
                update krilin.jobs j set parent_id = placed.job_id where j.id = child_id;
            end loop;
    end case;
end $$;
comment on function krilin.enqueue is 'Enqueues a job in the caller''s transaction; gives its id and what became of it: created, kept, replaced or debounced. jobs/README.md describes it.';

create function krilin.new_id() returns uuid language sql volatile as $$
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;
comment on function krilin.new_id is 'A UUIDv7 (RFC 9562): 48 bits of milliseconds, then random ones.';

create function krilin.wake(kind text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    select pg_notify('krilin_jobs', 'sql ' || k.queue) from krilin.kinds k where k.kind = wake.kind
$$;
comment on function krilin.wake is 'Wakes the workers for a kind. To be called after the commit of krilin.enqueue, where its jobs should not wait for the next poll.';

revoke all on function krilin.place_job, krilin.enqueue, krilin.new_id, krilin.wake from public;
grant execute on function krilin.place_job, krilin.enqueue, krilin.new_id, krilin.wake to krilin_runtime;
