-- The people who use this Krilin, and the tokens with which their programs speak for them.

create table users (
    id uuid primary key,
    name text not null,
    email text,
    timezone text not null,
    locale text not null default 'en',
    week_start text not null default 'monday',
    created_at timestamptz not null default krilin.now(),
    updated_at timestamptz not null default krilin.now(),
    constraint users_email_key unique (email),
    constraint users_name_check check (length(btrim(name)) between 1 and 200),
    constraint users_email_check check (email = lower(email) and length(email) <= 254),
    constraint users_timezone_check check (length(timezone) between 1 and 64),
    constraint users_week_start_check check (week_start in ('monday', 'sunday'))
);
comment on table users is 'A person who uses this Krilin.';
comment on column users.email is 'In lowercase, so that one address is one user whatever the spelling.';
comment on column users.timezone is 'A name of the IANA time zone database, such as Europe/Berlin.';
comment on column users.locale is 'A BCP 47 language tag.';

create table api_tokens (
    id uuid primary key,
    user_id uuid not null references users (id) on delete cascade,
    name text not null,
    secret_hash bytea not null,
    scopes text[] not null,
    created_at timestamptz not null default krilin.now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    constraint api_tokens_name_check check (length(btrim(name)) between 1 and 200),
    constraint api_tokens_secret_hash_check check (length(secret_hash) = 32),
    constraint api_tokens_scopes_check check (cardinality(scopes) > 0)
);
comment on table api_tokens is 'What a program shows to act for a user. The secret itself is never stored.';
comment on column api_tokens.secret_hash is 'SHA-256 of the secret. The secret is 256 random bits, so a slow hash would add nothing.';
comment on column api_tokens.last_used_at is 'Written at most once a minute.';
create index api_tokens_user_id_idx on api_tokens (user_id);
