#!/usr/bin/env python3
"""What clients see of the workers, through tests/net/fixture. Usage: transport.py FIXTURE io_uring|epoll [tls|ktls|kernel] [CASE...]
Prints TAP. With `tls` the same cases run over TLS, and those of TLS itself; with `ktls` some of them, over the fixture in which
a kernel that seals records is played; with `kernel` over a kernel that does (tools/kernel boots one)."""
import sys
import time

from transport_clients import (
    an_allocation_while_serving_is_noticed, answered_clients_when_draining, as_many_requests_as_connections, clients_that_are_reset,
    clients_that_leave_at_any_time, clients_that_leave_storage_alone, draining, half_a_request_when_draining, half_closed_clients_get_their_answer, idle_clients_give_way, keepalive_limit,
    more_clients_than_allowed, more_sent_ahead_than_one_buffer, more_sent_ahead_when_draining, more_sent_behind_the_last_request,
    new_clients_when_draining, occupied_port, others_do_not_give_way, pauses_within_the_write_timeout, queued_clients_when_draining,
    refused_clients_get_their_answer, refused_clients_that_stay, slow_lookups, stalled_readers_hold_no_buffers, timeouts)
from transport_requests import (
    a_day_in_one_response, bodies_of_requests, cross_origin, answers_are_not_kept_back, hot_segments, http10, lost_sources, pipelined_requests_come_back_in_order, preconditions,
    random_ranges_are_slices, refusals, requests_cut_at_every_byte, whole_bodies_and_heads)
from transport_tls import (
    a_kernel_that_takes_no_keys_is_done_without, keys_that_a_client_asks_for, the_kernel_seals_from_the_second_response_on, tls_ends_are_answered,
    tls_needs_client_certificates_where_told, tls_records_begin_small, tls_versions_names_and_tickets, unusable_certificates)
from workers import BACKEND, KTLS, STUB, TLS

CASES = [whole_bodies_and_heads, requests_cut_at_every_byte, answers_are_not_kept_back, pipelined_requests_come_back_in_order, random_ranges_are_slices,
         preconditions, refusals, cross_origin, bodies_of_requests, http10, a_day_in_one_response, stalled_readers_hold_no_buffers, timeouts,
         pauses_within_the_write_timeout, more_sent_ahead_than_one_buffer,
         lost_sources, clients_that_leave_at_any_time, clients_that_leave_storage_alone, clients_that_are_reset,
         half_closed_clients_get_their_answer, more_clients_than_allowed, idle_clients_give_way, others_do_not_give_way,
         refused_clients_get_their_answer, refused_clients_that_stay, slow_lookups, as_many_requests_as_connections,
         draining, half_a_request_when_draining, more_sent_ahead_when_draining, more_sent_behind_the_last_request,
         new_clients_when_draining, queued_clients_when_draining, answered_clients_when_draining, keepalive_limit, an_allocation_while_serving_is_noticed, occupied_port,
         hot_segments]
if TLS:  # ragged ends and half-closed clients are another matter there; who waits in the queue has not shaken hands
    CASES = [c for c in CASES if c not in (half_closed_clients_get_their_answer, clients_that_leave_storage_alone, slow_lookups, queued_clients_when_draining, occupied_port, more_clients_than_allowed, refused_clients_get_their_answer, as_many_requests_as_connections,
                                       an_allocation_while_serving_is_noticed)]
    CASES += [tls_versions_names_and_tickets, tls_ends_are_answered, tls_records_begin_small, tls_needs_client_certificates_where_told, unusable_certificates]

if KTLS:
    CASES = [the_kernel_seals_from_the_second_response_on, a_kernel_that_takes_no_keys_is_done_without, keys_that_a_client_asks_for, hot_segments, whole_bodies_and_heads, requests_cut_at_every_byte,
             pipelined_requests_come_back_in_order, random_ranges_are_slices, preconditions, refusals, bodies_of_requests, http10,
             clients_that_leave_at_any_time, idle_clients_give_way, keepalive_limit, tls_versions_names_and_tickets, tls_ends_are_answered]
if KTLS and not STUB:
    CASES.remove(a_kernel_that_takes_no_keys_is_done_without)

failed = 0
WHERE = BACKEND + (" ktls" if STUB else " kernel's TLS" if KTLS else " tls" if TLS else "")
only = sys.argv[4 if TLS else 3:]
cases = [c for c in CASES if not only or c.__name__ in only]
print(f"1..{len(cases)}")
for i, case in enumerate(cases, 1):
    begin = time.monotonic()
    try:
        case()
        print(f"ok {i} - {WHERE} {case.__name__} # {time.monotonic() - begin:.1f} s")
    except Exception as e:  # every fault of a case is a failure of that case
        failed += 1
        print(f"not ok {i} - {WHERE} {case.__name__}\n# {type(e).__name__}: {e}")
    sys.stdout.flush()
sys.exit(1 if failed else 0)
