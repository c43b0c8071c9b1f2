//! The users of the shop, each with its token.

use std::time::Duration;

use anyhow::Context;
use pulse_http::NewClaims;

use super::shop::Post;
use crate::client::Client;
use crate::commands::token;

/// Longest story, from which the tokens' lifetime follows.
const LIFETIME: Duration = Duration::from_hours(24);

/// A client for each user.
pub(crate) struct Senders(Vec<(&'static str, Client)>);

impl Senders {
    pub(crate) fn new(url: &str, jwt_secret: &str) -> anyhow::Result<Self> {
        let client = |user| {
            let claims = NewClaims { sub: user, scope: Some("events:write"), ..NewClaims::default() };
            Ok((user, Client::new(url, &token::issue(jwt_secret, &claims, LIFETIME)?)?))
        };
        Ok(Self(super::shop::USERS.into_iter().map(client).collect::<anyhow::Result<_>>()?))
    }

    /// Whether the API accepted the events: it may refuse some, for example those beyond a user's limit.
    ///
    /// # Errors
    /// If the API does not answer, or refuses the token.
    pub(crate) async fn send(&self, post: &Post) -> anyhow::Result<bool> {
        let (_, client) = self.0.iter().find(|(user, _)| *user == post.user).context("a user without a token")?;
        let (status, answer) = client.post_as(&post.request_id, post.path, &post.body).await?;
        anyhow::ensure!(status != 401 && status != 403, "the API refuses the token: set the API's secret: {answer}");
        Ok(status == 202)
    }
}
