//! Security token service: temporary credentials, and who the caller is.

mod assume_role;
mod assume_role_with_web_identity;
mod get_caller_identity;
mod get_session_token;
mod issue;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod web_tests;

pub use assume_role::AssumeRole;
pub use assume_role_with_web_identity::AssumeRoleWithWebIdentity;
pub use get_caller_identity::GetCallerIdentity;
pub use get_session_token::GetSessionToken;
