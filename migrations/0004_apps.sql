-- Apps: what was published, who has it in use, and what it keeps, needs and shows.
-- The tables that hold an app's own rows are made by publishing; they are named app_{app_id}_{table}.

create table apps (
    id text primary key,
    name text not null,
    current_version text not null,
    revision bigint not null default 1,
    published_at timestamptz not null default krilin.now(),
    constraint apps_id_check check (id ~ '^[a-z][a-z0-9]*(-[a-z0-9]+)*$' and length(id) between 2 and 30)
);
comment on table apps is 'An app and the version that is in force for everybody.';
comment on column apps.revision is 'Grows with each publication, so that a process sees with one number whether what it has loaded is current.';

create table app_versions (
    app_id text not null references apps (id) on delete cascade,
    version text not null,
    manifest jsonb not null,
    code text not null,
    code_name text not null,
    bundle_hash text not null,
    published_at timestamptz not null default krilin.now(),
    primary key (app_id, version),
    constraint app_versions_bundle_hash_check check (bundle_hash ~ '^[0-9a-f]{64}$')
);
comment on table app_versions is 'An app as it was published: metadata, version, manifest and code, of every version there ever was.';
comment on column app_versions.manifest is 'The manifest in its long form.';
comment on column app_versions.code_name is 'The file name that stack traces show.';
comment on column app_versions.bundle_hash is 'SHA-256 of the code.';

create table app_installations (
    user_id uuid not null references users (id) on delete cascade,
    app_id text not null references apps (id),
    installed_version text not null,
    state text not null default 'active',
    config jsonb not null default '{}',
    grants text[] not null,
    near_limit text[] not null default '{}',
    installed_at timestamptz not null default krilin.now(),
    updated_at timestamptz not null default krilin.now(),
    primary key (user_id, app_id),
    constraint app_installations_state_check check (state in ('active', 'paused', 'disabled'))
);
comment on table app_installations is 'An app in a user''s hands. A changing action locks this row, so two of one installation never interleave.';
comment on column app_installations.installed_version is 'What the user approved; the code that runs is the app''s current version.';
comment on column app_installations.config is 'The user''s settings, filled up with the manifest''s defaults.';
comment on column app_installations.grants is 'Scopes and switches the user approved; each call is checked against them.';
comment on column app_installations.near_limit is 'Tables over nine tenths of their max_rows; before an insert into one of these the rows are counted.';
create index app_installations_app_id_idx on app_installations (app_id);

create table app_dependencies (
    app_id text not null references apps (id) on delete cascade,
    depends_on_app_id text not null,
    version text not null,
    required boolean not null,
    uses text[] not null default '{}',
    primary key (app_id, depends_on_app_id)
);
comment on table app_dependencies is 'Which apps the current version of an app needs or likes to have.';
comment on column app_dependencies.version is 'A range of versions, such as ^1.2.';

create table app_permissions (
    app_id text not null references apps (id) on delete cascade,
    permission_type text not null,
    scope text not null,
    primary key (app_id, permission_type, scope)
);
comment on table app_permissions is 'What the current version of an app asks for. What a user granted is in app_installations.grants.';

create table app_tables (
    app_id text not null references apps (id) on delete cascade,
    table_name text not null,
    physical_name text not null unique,
    schema jsonb not null,
    primary key (app_id, table_name)
);
comment on table app_tables is 'The tables of an app as they stand; the next version is compared with this.';
comment on column app_tables.schema is 'The table as the manifest''s long form has it.';

create table app_outputs (
    app_id text not null references apps (id) on delete cascade,
    output_id text not null,
    output_type text not null,
    access text not null,
    schema jsonb not null,
    primary key (app_id, output_id),
    constraint app_outputs_output_type_check check (output_type in ('data', 'agent', 'stream'))
);
comment on table app_outputs is 'What the current version of an app shows to others.';
comment on column app_outputs.schema is 'The output as the manifest''s long form has it.';

-- Publishing belongs to the owner. Those who serve and work read what is published and keep installations.
revoke insert, update, delete on apps, app_versions, app_dependencies, app_permissions, app_tables, app_outputs from krilin_runtime;

-- Somebody who looks around with psql finds the tables without naming the schema.
do $$
begin
    execute format('alter database %I set search_path = krilin, public', current_database());
exception when insufficient_privilege then
    null;
end
$$;
