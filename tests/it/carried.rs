//! What holds whatever carries it: tests of other files once more over TLS, and over HTTP/2.

use crate::harness::{Sse, Way, Ws, over};

/// The bodies of tests that hold whatever carries a stream: over TLS with HTTP/1.1, and over HTTP/2.
macro_rules! carried {
    ($($group:ident::$name:ident)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn sse() {
                over(Way::Tls);
                crate::$group::$name::body::<Sse>();
            }

            #[test]
            fn ws() {
                over(Way::Tls);
                crate::$group::$name::body::<Ws>();
            }

            #[test]
            fn sse_http2() {
                over(Way::Http2);
                crate::$group::$name::body::<Sse>();
            }
        }
    )+};
}

carried! {
    delivery::a_string_key
    delivery::every_type
    delivery::keys_and_values_that_are_not_text
    delivery::a_flush_removes_everything
    elsewhere::a_relay_that_was_restarted
    events::every_event_in_order
    events::a_burst_is_told_event_by_event
    fairness::every_key_is_seen_again_and_again
    reload::a_mapping_that_changes
    reload::a_mapping_that_goes
    reload::who_is_not_concerned_notices_nothing
    resume::a_known_cursor_gets_what_changed
    resume::a_snapshot_cut_anywhere
    resume::live_changes_cut_anywhere
    room::a_channel_of_too_many_keys
    room::all_keys_are_taken
    room::all_bytes_are_taken
    room::happenings_are_kept_for_less_long
    shutdown::a_drain_ends_every_stream
    shutdown::a_client_that_does_not_read
    slow_client::bounded_memory_and_nobody_delayed
    slow_client::ended_after_the_write_timeout
    stale::late_and_then_lost
    subscribe::joining_while_keys_are_written
}

/// Whole tests of other files, on these ways.
macro_rules! again {
    ($($group:ident::$file:ident::$name:ident: $($way:ident)+;)+) => {$(
        mod $name {
            use super::*;

            $(#[test]
            fn $way() {
                over(again!(@ $way));
                crate::$group::$file::$name();
            })+
        }
    )+};
    ($($group:ident::$name:ident: $($way:ident)+;)+) => {$(
        mod $name {
            use super::*;

            $(#[test]
            fn $way() {
                over(again!(@ $way));
                crate::$group::$name();
            })+
        }
    )+};
    (@ tls) => { Way::Tls };
    (@ http2) => { Way::Http2 };
}

again! {
    access::rules::the_subject_of_a_token_has_so_many_streams: tls http2;
    limits::connections::in_all: tls http2;
    limits::connections::who_is_refused_does_not_stay: tls http2;
    limits::connections::of_one_address: tls http2;
    limits::connections::of_one_64: tls http2;
    limits::connections::places_come_back: tls http2;
    limits::lifetime::the_close_code: tls http2;
    limits::proxies::a_proxy_that_passes_tcp_on: tls http2;
    limits::rates::connects: tls http2;
    limits::rates::requests_of_one_connection: tls http2;
    limits::rates::a_flood: tls;
    limits::rates::messages: tls;
    limits::rates::pings: tls;
    limits::sizes::a_head: tls http2;
    limits::sizes::a_url: tls;
    limits::sizes::the_time_for_a_head: tls http2;
    limits::sizes::a_message: tls;
    limits::sizes::channels: tls http2;
    limits::sizes::channels_of_a_token: tls http2;
    attack::floods::connections_that_say_nothing: tls;
    attack::floods::connections_that_come_and_go: tls;
    attack::floods::messages_without_an_end: tls;
    attack::floods::names_without_an_end: tls http2;
    attack::floods::requests_without_an_end: tls;
    attack::injection::through_keys_and_values_into_events: tls http2;
    attack::injection::through_requests: tls http2;
    attack::oversize::heads_of_requests: tls;
    attack::oversize::names_cursors_and_lists: tls http2;
    attack::oversize::messages_of_web_sockets: tls;
    attack::slow::heads_byte_by_byte: tls;
    attack::slow::streams_that_are_never_read: tls http2;
    attack::slow::half_closed_streams: tls;
    attack::slow::web_sockets_that_answer_no_ping: tls;
    attack::slow::states_that_are_never_read: tls http2;
    attack::smuggling::lengths_that_contradict_each_other: tls;
    attack::smuggling::bodies_where_none_belongs: tls;
    attack::smuggling::heads_that_are_none: tls;
    attack::smuggling::heads_that_are_odd_but_clear: tls;
    attack::tokens::claims_that_do_not_count: tls http2;
}

again! {
    room::the_forms_of_a_large_channel_end_nobody: tls http2;
    room::names_of_one_address_push_out_its_own: tls http2;
    room::what_is_half_written_is_bounded: tls http2;
    room::a_flood_of_names_is_no_state: tls http2;
}
