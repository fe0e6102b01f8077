//! The store's tests: one story for every implementation (`suite`), and what only a file can show (`file`).

mod documents;
mod file;
mod suite;
mod targets;

use std::sync::Arc;

use munjigi_core::id::AccountId;
use munjigi_core::secret::{MasterKey, MasterKeys};
use munjigi_core::time::Timestamp;

use super::Store;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

fn master(first: u8) -> Arc<MasterKeys> {
    Arc::new(MasterKeys::new(MasterKey::new(1, [first; 32]), Vec::new()))
}

/// A new SQLite store and the directory it lives in.
async fn sqlite() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let account = AccountId::parse("123456789012").unwrap();
    let store = Store::create(&directory.path().join("munjigi.db"), master(7), &account, NOW).await.unwrap();
    (directory, store)
}

/// Declares the suite's tests for one implementation.
macro_rules! run_suite {
    ($make:path: $($story:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let (_directory, store) = $make().await;
                suite::$story(&store).await;
                store.close().await;
            }
        )*
    };
}

/// The same for the documents' part of the suite.
mod document_stories {
    use super::{documents as suite, sqlite};

    run_suite!(sqlite:
        a_documents_versions_count_up_and_its_default_is_chosen,
        a_document_is_deleted_by_version_and_not_while_it_is_shared,
        documents_list_by_name_and_keep_their_tags,
    );
}

/// The same for the targets' part of the suite.
mod target_stories {
    use super::{sqlite, targets as suite};

    run_suite!(sqlite:
        a_target_is_put_twice_as_if_once_and_listed_by_name,
        a_password_is_sealed_for_its_target_and_stays_where_it_was_given_for,
    );
}

run_suite!(sqlite:
    users_are_unique_without_regard_to_case_and_page_by_name,
    a_user_with_leftovers_is_not_deleted,
    an_ssh_key_is_one_users_alone,
    quotas_hold,
    policies_version_attach_and_refuse_deletion_while_used,
    inline_policies_are_judged_together_before_they_are_stored,
    tags_fold_their_keys,
    a_loaded_key_opens_to_the_secret_that_was_shown,
    the_administrator_is_complete,
    twenty_nodes_racing_for_one_use_of_an_activation_yield_one,
    a_registration_repeats_after_a_lost_answer_but_not_with_another_code,
    a_refused_name_uses_nothing_up,
    a_node_with_the_agent_of_aws_changes_its_key_and_its_first_name_once,
    sessions_move_only_forward_and_end_once,
    sessions_list_newest_first_by_filter_and_page,
    page_tokens_serve_one_binding_for_an_hour,
    settings_keep_secrets_sealed,
    addresses_of_nodes_are_unique_and_stay,
    pushed_keys_are_found_by_node_user_and_fingerprint,
);
