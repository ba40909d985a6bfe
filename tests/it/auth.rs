//! Users and the tokens with which their programs speak for them.

use krilin::{
    clock::SystemClock,
    model::{
        id::UserId,
        token::{Scope, Scopes, TokenText},
        user::NewUser,
    },
    store::{Error, tokens, users},
};

use crate::world::World;

pub async fn add_user(world: &World, name: &str) -> UserId {
    let user = NewUser::parse(name, None, "Europe/Berlin").unwrap();
    users::insert(&world.pool, UserId::new(&SystemClock), &user).await.unwrap().id
}

fn new_token<'a>(text: &TokenText, user_id: UserId, scopes: Scopes) -> tokens::NewToken<'a> {
    tokens::NewToken { id: text.id, user_id, name: "a program", secret_hash: text.hash(), scopes, expires_at: None }
}

/// A token of `user` with `scopes`, ready for an `Authorization` header.
pub async fn add_token(world: &World, user: UserId, scopes: &[Scope]) -> TokenText {
    let text = TokenText::mint(&SystemClock).unwrap();
    tokens::insert(&world.pool, new_token(&text, user, scopes.iter().copied().collect())).await.unwrap();
    text
}

#[tokio::test]
async fn one_address_is_one_user_whatever_the_spelling() {
    let world = World::new().await;
    let ada = NewUser::parse("Ada", Some("Ada@example.org"), "UTC").unwrap();
    let added = users::insert(&world.pool, UserId::new(&SystemClock), &ada).await.unwrap();
    let again = NewUser::parse("Someone else", Some("ada@EXAMPLE.org"), "UTC").unwrap();
    let refused = users::insert(&world.pool, UserId::new(&SystemClock), &again).await.unwrap_err();
    assert_eq!(refused.constraint(), Some("users_email_key"));

    for text in ["Ada", "ADA@example.org", &added.id.to_string()] {
        let found = users::search(&world.pool, text).await.unwrap();
        assert_eq!(found.iter().map(|user| user.id).collect::<Vec<_>>(), [added.id], "{text}");
    }
    assert_eq!(users::list(&world.pool).await.unwrap().len(), 1);
    assert_eq!(users::find(&world.pool, added.id).await.unwrap().timezone, chrono_tz::UTC);
    assert!(matches!(users::find(&world.pool, UserId::new(&SystemClock)).await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_token_is_stored_as_a_hash_and_revoked_once() {
    let world = World::new().await;
    let user = add_user(&world, "Ada").await;
    let text = add_token(&world, user, &[Scope::JobsRead, Scope::AppsCall]).await;

    let (token, hash) = tokens::find(&world.pool, text.id).await.unwrap();
    assert!(hash == text.hash() && token.user_id == user && token.revoked_at.is_none());
    assert!(token.scopes.contains(Scope::AppsCall) && !token.scopes.contains(Scope::JobsWrite));

    let first = tokens::revoke(&world.pool, text.id).await.unwrap().revoked_at;
    assert!(first.is_some());
    assert_eq!(tokens::revoke(&world.pool, text.id).await.unwrap().revoked_at, first);
    assert_eq!(tokens::list(&world.pool, Some(user)).await.unwrap().len(), 1);
    assert_eq!(tokens::list(&world.pool, None).await.unwrap().len(), 1);
    assert!(tokens::list(&world.pool, Some(UserId::new(&SystemClock))).await.unwrap().is_empty());

    let nobody = new_token(&TokenText::mint(&SystemClock).unwrap(), UserId::new(&SystemClock), token.scopes);
    let refused = tokens::insert(&world.pool, nobody).await.unwrap_err();
    assert_eq!(refused.constraint(), Some("api_tokens_user_id_fkey"));
}

#[tokio::test]
async fn the_last_use_is_noted_at_most_once_a_minute() {
    let world = World::new().await;
    let user = add_user(&world, "Ada").await;
    let text = add_token(&world, user, &[Scope::JobsRead]).await;
    let last_use = async || tokens::find(&world.pool, text.id).await.unwrap().0.last_used_at;

    tokens::touch(&world.pool, text.id).await.unwrap();
    let first = last_use().await;
    assert!(first.is_some());
    tokens::touch(&world.pool, text.id).await.unwrap();
    assert_eq!(last_use().await, first);
    world.advance(std::time::Duration::from_secs(61)).await;
    tokens::touch(&world.pool, text.id).await.unwrap();
    assert!(last_use().await > first);
}
