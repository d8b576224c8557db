//! Storage as its users see it: one suite on local files, on a real S3 server and through URLs that
//! are signed for it; then faults.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test by panicking"
)]

mod backend;
mod clerk;
mod faults;
mod futures_are_send;
mod granted_urls;
mod hub;
mod suite;
mod suite_models;
mod suite_refusals;

/// Makes a test of each function, once per backend.
macro_rules! on_every_backend {
    ($($module:ident::$case:ident),* $(,)?) => {
        mod files {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case(&crate::backend::Backend::files()).await;
            })*
        }
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case(&crate::backend::Backend::s3(stringify!($case))).await;
            })*
        }
        mod granted {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case(&crate::backend::Backend::granted(stringify!($case))).await;
            })*
        }
    };
}

on_every_backend! {
    suite::content_comes_back_whatever_its_length,
    suite::objects_lie_where_the_layout_says,
    suite::the_same_content_is_sent_once,
    suite::an_interrupted_upload_sends_no_part_twice,
    suite::an_interrupted_download_keeps_its_parts,
    suite::writers_of_the_same_content_do_not_disturb_each_other,
    suite::a_prefix_goes_away_and_its_neighbours_stay,
    suite::chosen_objects_of_a_prefix_go_away_and_the_others_stay,
    suite::a_probe_measures_the_emulated_link_and_leaves_nothing,
    suite::a_spool_fetches_each_artifact_once_and_again_after_a_restart,
    suite::a_fetch_that_is_given_up_midway_gives_its_room_back,
    suite::a_full_spool_is_resumable,
    suite_models::a_folder_comes_back_as_it_was_pushed,
    suite_models::a_single_file_is_fetched_as_a_file,
    suite_models::the_least_recently_used_model_goes_first_and_one_in_use_stays,
    suite_models::fetching_the_same_model_at_the_same_time_moves_it_once,
    suite_models::an_interrupted_model_resumes,
    suite_models::a_model_that_was_never_pushed_is_not_found,
    suite_refusals::a_corrupt_part_is_named_and_nothing_takes_its_place,
    suite_refusals::a_part_of_another_length_is_refused,
    suite_refusals::a_manifest_that_lies_is_refused,
    suite_refusals::what_is_above_the_limit_is_refused_before_a_byte_moves,
    suite_refusals::parts_that_are_right_do_not_make_a_wrong_whole_right,
    suite_refusals::a_prefix_that_could_escape_is_refused,
    suite_refusals::a_missing_artifact_is_not_found,
}
