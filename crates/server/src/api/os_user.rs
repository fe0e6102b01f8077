//! As which OS user sessions run, and what choosing one or a privileged one needs (T-54).

use crate::Server;
use crate::api::operation::Requirement;
use crate::api::ssm::target::node_requirement;
use crate::gateway::node_aws::AGENTS_OWN_USER;
use crate::identity::Principal;
use crate::store::Node;

/// The principal's tag that names the OS user its sessions run as, as in AWS Session Manager.
pub(crate) const RUN_AS_TAG: &str = "SSMSessionRunAs";
/// Lets a caller choose an OS user other than the one its sessions run as.
const CHOOSE_USER: &str = "munjigi:ChooseOsUser";
/// Lets a session run as root or another privileged OS user (T-54).
const PRIVILEGED_USER: &str = "munjigi:StartPrivilegedSession";

/// Returns what choosing an OS user needs.
pub(crate) fn choose_user_requirement(server: &Server, node: &Node, os_user: &str) -> Requirement {
    node_requirement(server, CHOOSE_USER, node).with("munjigi:OsUser", os_user)
}

/// Returns what running as a privileged OS user needs (T-54).
pub(crate) fn privileged_requirement(server: &Server, node: &Node, os_user: &str) -> Requirement {
    node_requirement(server, PRIVILEGED_USER, node).with("munjigi:OsUser", os_user)
}

/// Returns the OS user that a principal's sessions run as on a node when nothing else is wished: root if the document
/// is for root, else the principal's tag, the account that an account rule gives it there, the document's account, and
/// only without run-as what node and server give. Rules are those of [`crate::accounts::View::fresh`].
pub(crate) fn default_user(
    server: &Server,
    principal: &Principal,
    node: &Node,
    elevated: bool,
    run_as: Option<&str>,
) -> Option<String> {
    if elevated {
        return Some("root".to_owned());
    }
    let tagged = principal.tags.get(RUN_AS_TAG).cloned().or_else(|| server.accounts.os_user(principal, node));
    if let Some(account) = run_as {
        return tagged.or_else(|| Some(account.to_owned())).filter(|user| !user.is_empty());
    }
    let only = || server.gateway.nodes.get(&node.id).and_then(|link| link.only_user);
    let configured = || server.config.session.default_os_user.clone();
    // As in AWS Session Manager, where nobody says otherwise. AWS's agent makes it with every right, and there it is
    // judged as a privileged user; ours makes it without any (T-54).
    tagged.or_else(only).or_else(configured).or_else(|| Some(AGENTS_OWN_USER.to_owned()))
}
