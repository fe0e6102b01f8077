//! Lists in pages: reads the token a caller brings, and makes the one for the next page. Tokens are bound to caller,
//! operation and parameters (aws-api, part C).

use munjigi_core::time::Timestamp;

use super::error::ApiError;
use super::operation::Operation;
use crate::Server;
use crate::door::Authorized;
use crate::store::{InvalidToken, Page, PageTokens};

/// Where a page begins and how long it is.
pub(crate) struct Paging<'s> {
    tokens: &'s PageTokens,
    binding: String,
    now: Timestamp,
    /// The key behind which the page begins.
    pub(crate) after: Option<String>,
    /// How many entries it may have.
    pub(crate) limit: usize,
}

impl<'s> Paging<'s> {
    /// Reads the caller's token. `parameters` are those that choose what is listed.
    pub(crate) fn begin<O: Operation>(
        call: &Authorized<O>,
        server: &'s Server,
        parameters: &[&str],
        token: Option<&str>,
        limit: usize,
    ) -> Result<Self, InvalidToken> {
        let caller = call.caller().principal().arn.as_str();
        let mut binding = format!("{}\u{1f}{}\u{1f}{caller}", O::SERVICE.signing_name(), O::NAME);
        for parameter in parameters {
            binding.push('\u{1f}');
            binding.push_str(parameter);
        }
        let (tokens, now) = (server.store.pages(), call.request().time);
        let after = token.map(|token| tokens.read(&binding, token, now)).transpose()?;
        Ok(Self { tokens, binding, now, after, limit })
    }

    /// Makes the token of the page that begins behind the key `next`.
    pub(crate) fn token(&self, next: Option<String>) -> Result<Option<String>, ApiError> {
        let token = next.map(|next| self.tokens.issue(&self.binding, &next, self.now));
        token.transpose().map_err(ApiError::internal)
    }

    /// Cuts the page out of a whole list that is in the order of its keys.
    pub(crate) fn cut<T>(&self, items: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let rest = items.into_iter().filter(|item| self.after.as_ref().is_none_or(|after| key(item) > *after));
        Page::cut(rest.collect(), self.limit, key)
    }
}
