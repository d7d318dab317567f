"""Every reason code, with the sentence an operator reads and the next step. One table, shown by the console, the
command line and the runbook alike; a code that is not here cannot be raised (see `tests/unit/test_reasons.py`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    meaning: str
    advice: str


REASONS: dict[str, Reason] = {
    # Records
    "no_id": Reason(
        "The record has no usable id.",
        "Open the failure's payload: Pipedrive or a proxy between sent something that is not a record.",
    ),
    "not_a_record": Reason(
        "An item of the list is not an object.",
        "Open the failure's payload: Pipedrive or a proxy between sent something that is not a record.",
    ),
    "no_update_time": Reason(
        "The record carries no readable update time, so its age cannot be compared.",
        "Save the record once in Pipedrive, then replay the failure.",
    ),
    "unusable_text": Reason(
        "A text holds characters that cannot be stored or sent: a NUL or half a surrogate pair.",
        "Correct the text in Pipedrive; the next change brings the record over.",
    ),
    "too_long": Reason(
        "A value is longer than Hull or Pipedrive accept.",
        "Shorten the value at its source; the record's other fields were carried over.",
    ),
    "wrong_type": Reason(
        "A field holds a value of another type than its definition says.",
        "Correct the value in Pipedrive, or map another field; the record's other fields were carried over.",
    ),
    "option_unknown": Reason(
        "A field names an option that its definition does not list.",
        "Add the option in Pipedrive, or choose another value: it is carried over by itself then. The record's other fields were "
        "carried over.",
    ),
    "option_ambiguous": Reason(
        "A value can be read as more than one option of the field.",
        "Send a list of labels instead of one text, or rename the options in Pipedrive so that no two have one label.",
    ),
    "field_missing": Reason(
        "A mapped field is not part of the record.",
        "The field was deleted in Pipedrive, or renamed to a new one: correct the mapping in the settings.",
    ),
    "duplicate_claim": Reason(
        "Another record already holds this e-mail, domain or external id; this one travels by its Pipedrive id alone.",
        "Merge the two records in Pipedrive, or correct the value on one of them. Of a holder that was deleted: restore it, or "
        "let it go with pipeline mappings release CONNECTOR ENTITY ID; the waiting one then takes its place in Hull.",
    ),
    "needs_a_yes": Reason(
        "New settings would touch more of the known records than change_stop_share allows, so nothing has begun.",
        "Look at what they would do: pipeline settings plan. Then say yes under Plans, or with pipeline runs confirm CONNECTOR "
        "RUN; or put the earlier settings back in force and cancel the run.",
    ),
    "claim_released": Reason(
        "The record departed and holds this e-mail, domain or external id no longer; whoever waited for it is delivered again.",
        "Nothing to do: in Hull the waiting record takes over the User or Account that was known by it.",
    ),
    "gave_way": Reason(
        "Hull shows this departed record and a living one as one: the User or Account is the living one's from now on.",
        "Nothing to do; if the departed record is restored, Hull cannot tell the two apart: see two_records_one_hull_id.",
    ),
    "shared_domain": Reason(
        "The domain belongs to a host that many organizations use, or several Organizations give it, so it identifies nobody.",
        "Enter the organization's own web site; until then it travels by its Pipedrive id alone.",
    ),
    "deleted_in_pipedrive": Reason(
        "The record is deleted in Pipedrive, so it is neither brought to Hull nor written to.",
        "Nothing to do; restore it in Pipedrive if it should be synchronised.",
    ),
    "unchanged": Reason("Nothing that is mapped differs from what was carried over last.", "Nothing to do."),
    "shell_created": Reason(
        "An Organization that was not known yet is referenced by a Person; an empty Account stands in for it.",
        "Nothing to do: it is read within a minute or two, or by the fetch of Organizations that is under way.",
    ),
    "gone": Reason(
        "Pipedrive no longer has this record, or it is not visible to the connected user.",
        "Check the record in Pipedrive; undelete it or widen its visibility if it should be synchronised.",
    ),
    "deleted": Reason(
        "The record was deleted in Pipedrive.",
        "Nothing to do: with support for deletions on, Hull shows when; it comes back by itself when it is restored.",
    ),
    "deletion_not_supported": Reason(
        "The record was deleted in Pipedrive, and the settings do not ask for deletions in Hull.",
        "Nothing to do; switch on support for deletions in the settings to mark later ones in Hull.",
    ),
    "merged": Reason(
        "The record was merged into another one in Pipedrive, and Hull was asked to do the same.",
        "Nothing to do: the other one was read and delivered again.",
    ),
    "merge_not_joined": Reason(
        "The record was merged into another one in Pipedrive, but Hull keeps the two apart: their external ids differ.",
        "Merge the two in Hull, or correct the external id; until then the one that went is treated as deleted.",
    ),
    "too_many_missing": Reason(
        "A full fetch did not list so many known records that they are not taken for deleted.",
        "Check what the connected user may see in Pipedrive; if they were deleted, replay the failure, else discard it.",
    ),
    "not_synchronised": Reason(
        "The webhook is about something that is neither a Person nor an Organization.",
        "Nothing to do; subscribe to persons and organizations only to stop these.",
    ),
    "gap_repaired": Reason(
        "Records had changed in Pipedrive and no webhook had told of them; the incremental fetch brought them to Hull.",
        "Nothing is missing. If it happens again, see how the webhooks stand: pipeline connectors webhooks CONNECTOR.",
    ),
    "several_ids": Reason(
        "Hull holds several living records of Pipedrive under one User or Account.",
        "Merge these records in Pipedrive, or split the User in Hull; then replay the failure.",
    ),
    "ambiguous_match": Reason(
        "Several records of Pipedrive answer to the claim that was looked up, so none was chosen.",
        "Merge them in Pipedrive, or correct the claim on those that should not match; then replay the failure.",
    ),
    "already_joined": Reason(
        "The record that answers to the claim is joined to another User or Account of Hull.",
        "Merge the two in Hull, or correct the claim on one of them; then replay the failure.",
    ),
    "hull_id_unknown": Reason(
        "The record that answers is in Hull already, and Hull does not show yet which User or Account it is.",
        "Nothing to do: Hull is asked again. If a failure says so, Hull never showed it; replay the failure.",
    ),
    "held_by_another": Reason(
        "Another record of Pipedrive holds this e-mail, domain or external id, so it was not written a second time.",
        "Merge the two records in Pipedrive, or correct the value on one of them; then send the record again.",
    ),
    "rules_fight": Reason(
        "Values of a field go back and forth between Hull and Pipedrive: two rules undo one another.",
        "Change one of the rules that the failure names, here or in the other system; then replay it.",
    ),
    "spoken_for": Reason(
        "Another User or Account with the same claim is being made in Pipedrive at this moment.",
        "Nothing to do: it is looked up again in a moment. As a failure: replay that of the other one first, then this one.",
    ),
    "joined_meanwhile": Reason(
        "The record was joined by another worker a moment ago.",
        "Nothing to do: it goes on with what is known now.",
    ),
    "mirror_incomplete": Reason(
        "The first full fetch, or the backfill for new identifiers, has not ended: the record may be in Pipedrive already.",
        "Nothing to do: those that wait go on when it ends. If it stopped, replay its failure; if it is held, approve it.",
    ),
    "index_behind": Reason(
        "More changed in Pipedrive than a look-up can list, so nothing tells yet whether Pipedrive has such a record.",
        "Nothing to do: the fetch of what changed was started, and those that wait go on when it ends.",
    ),
    "changed_in_pipedrive": Reason(
        "The field was changed in Pipedrive and not in Hull, so it stays as Pipedrive has it.",
        "Nothing to do: the change comes to Hull by the incoming mapping of the field.",
    ),
    "older_report": Reason(
        "Hull reported this record before a report that was considered already.",
        "Nothing to do: the newer report says what the record is.",
    ),
    "owned_by_pipedrive": Reason(
        "The field was changed on both sides, and the settings give Pipedrive the last word.",
        "Nothing to do; choose another owner for the field in the settings if Hull should win.",
    ),
    "changed_by_pipedrive": Reason(
        "Pipedrive holds something else than what was written: it has a spelling of its own, or ignored the value.",
        "Compare the event's values with the record; if the value was ignored, check the field in Pipedrive.",
    ),
    "created_twice": Reason(
        "A record was made here, and another one with the same claim came up afterwards: perhaps the same one, made twice.",
        "Compare the two records in Pipedrive and merge them if they are one.",
    ),
    "webhook_malformed": Reason(
        "The body is not what Pipedrive's webhooks of version 2.0 look like.",
        "The event names the delivery, which keeps the body for 30 days; see that nothing rewrites webhooks on the way.",
    ),
    "webhook_nameless": Reason(
        "The body is longer than a megabyte, or no JSON, and no record's id was found in it.",
        "Nothing is lost: the fetch of changes is started and brings what changed. The event names the delivery.",
    ),
    "webhook_unreadable": Reason(
        "The body is longer than a megabyte, nests too deep or is no JSON; only the record's id was found in it.",
        "Nothing is lost: its record is read again. The event names the delivery, which keeps what came for 30 days.",
    ),
    "webhook_old_format": Reason(
        "The webhook is of version 1.0, which says values in other shapes.",
        "Nothing is lost: its record is read again. Take the webhook of version 1.0 away in Pipedrive; ours is of 2.0.",
    ),
    "webhook_future_dated": Reason(
        "The webhook claims a moment that lies ahead of the database's clock, so nothing tells whether it is the newest.",
        "Nothing is lost: its record is read again. If it happens often, check the clock of the database's machine.",
    ),
    "webhook_other_company": Reason(
        "The webhook is of another Pipedrive company than the connector: its ids mean other records here.",
        "Take the webhook to this address away in the other company.",
    ),
    "webhook_missing": Reason(
        "Pipedrive had no webhook to this connector any more; it deletes one that failed for three days.",
        "It is made again by itself, and what changed meanwhile is fetched; keep PUBLIC_URL reachable from outside.",
    ),
    "webhook_paused": Reason(
        "Pipedrive has stopped the webhook for a while, as it does for 30 minutes after ten failed deliveries.",
        "It is made again by itself, and what changed meanwhile is fetched; look why deliveries failed, in the web log.",
    ),
    "webhook_moved": Reason(
        "The webhook pointed elsewhere, asked for something else or knew older credentials.",
        "It is made again by itself, and what changed meanwhile is fetched; leave the connector's webhooks as they are.",
    ),
    "webhook_failing": Reason(
        "The last delivery of the webhook was not answered with success.",
        "It is made again by itself, and what changed meanwhile is fetched; look why deliveries failed, in the web log.",
    ),
    "webhook_silent": Reason(
        "Records changed in Pipedrive of which no webhook told.",
        "It is made again by itself; check that nothing between Pipedrive and PUBLIC_URL swallows requests.",
    ),
    "webhook_healed": Reason(
        "The webhook was made again, and what changed since it was last sound is fetched.", "Nothing to do."
    ),
    "webhooks_forbidden": Reason(
        "The connected user may not manage webhooks, so changes arrive with fetches alone.",
        "Connect with an administrator of Pipedrive; nothing else waits for it.",
    ),
    "two_records_one_hull_id": Reason(
        "Hull has merged two records that are still two in Pipedrive.",
        "Merge them in Pipedrive too, or tell them apart in Hull; until then only the first one is sent back.",
    ),
    # Outgoing
    "not_in_segment": Reason(
        "The record is in none of the synchronised segments.",
        "Add one of its segments to the synchronised segments in the settings, or the record to one of them.",
    ),
    "no_outgoing_mapping": Reason(
        "No outgoing attributes are set.",
        "Add outgoing attributes in the settings; until then only who enters a segment is sent, as a shell.",
    ),
    "no_relevant_change": Reason(
        "Something changed in Hull, but nothing that is mapped, and what is mapped stands in Pipedrive already.",
        "Nothing to do; add the attribute to the outgoing attributes in the settings if it should be sent.",
    ),
    "no_change": Reason(
        "Hull told of the record without naming a change, and what is mapped stands in Pipedrive already.",
        "Nothing to do.",
    ),
    "part_missing": Reason(
        "An amount without a currency, or a range without an end: Pipedrive takes neither.",
        "Map the other part as well: the field's code with `_currency` or `_until` behind it.",
    ),
    "currency_unknown": Reason(
        "An amount came without a currency, and Pipedrive's default currency of the account is not known yet.",
        "It is read from Pipedrive with the field definitions; if it stays, map the currency beside the amount.",
    ),
    "field_refused": Reason(
        "Pipedrive refused the value of this field; the record's other fields were written.",
        "Read Pipedrive's words in the detail: correct the value in Hull or the field in Pipedrive, then replay.",
    ),
    "mapping_conflict": Reason(
        "Two rows of the mapping write the same field of Pipedrive, so one of them is ignored.",
        "Delete one of the two rows in the settings; new settings with such rows are refused.",
    ),
    "not_writable": Reason(
        "A mapped field is one that Pipedrive fills itself and accepts no value for.",
        "Take the field out of the outgoing attributes, or map another one.",
    ),
    "name_missing": Reason(
        "Pipedrive keeps no record without a name, and Hull has none to give.",
        "Give the record a name, an e-mail or a domain in Hull.",
    ),
    "no_hull_id": Reason(
        "A message from Hull carries no id of the User or Account.",
        "Send the record again from Hull; if it stays, report the message to Hull.",
    ),
    "not_in_hull": Reason(
        "Hull has no User or Account of the id that was to be sent.",
        "Look at the address of its page in Hull: the id stands at its end.",
    ),
    "nested_too_deeply": Reason(
        "A message from Hull holds objects within objects to a depth at which it cannot be stored.",
        "Flatten the attribute at its source, then send the record again from Hull; its neighbours were carried over.",
    ),
    "refused_by_pipedrive": Reason(
        "Pipedrive read the write and refused it.",
        "Read Pipedrive's own words in the failure, correct the value at its source, then replay.",
    ),
    # Hull's side
    "settings_refused": Reason(
        "Settings that were saved in Hull make no sense; those of before stay in force.",
        "Correct in Hull what is named, and save again.",
    ),
    "export_malformed": Reason(
        "A selection was sent from Hull without an address, a known format or a kind of record.",
        "Send it again from Hull; if it stays, report it to Hull.",
    ),
    "export_host_refused": Reason(
        "The file of a selection that was sent from Hull lies where nothing may be fetched from.",
        "If it is Hull's own storage, add its host to HULL_EXPORT_HOSTS, restart, and send the selection again.",
    ),
    "export_gone": Reason(
        "The file of a selection that was sent from Hull is not there, or not for us to read.",
        "Send the selection again from Hull: such files are kept for a short time only.",
    ),
    "export_too_large": Reason(
        "The file of a selection that was sent from Hull is larger than what is read at once.",
        "Send smaller selections: a file may hold 1 GiB.",
    ),
    "export_too_slow": Reason(
        "The file of a selection downloads too slowly: its server sends it from the beginning only, and not within three minutes.",
        "Tried again by itself. If it stays, send smaller selections, or look at the network between this host and the server.",
    ),
    "export_line_broken": Reason(
        "A line of the file that was sent from Hull is no User or Account.",
        "Send the record it stands for by itself; the other lines were taken in.",
    ),
    # Pages and connections
    "page_not_json": Reason(
        "Pipedrive answered with something that is not JSON, or was cut off on the way.",
        "Tried again by itself; if it persists, look at the excerpt in the failure and at Pipedrive's status page.",
    ),
    "page_malformed": Reason(
        "Pipedrive answered JSON without a list of records where one belongs.",
        "Look at the excerpt in the failure; if it persists, ask Pipedrive's support.",
    ),
    "page_repeats": Reason(
        "Pipedrive gave the same page cursor twice, so the walk would never end.",
        "The run was stopped where it stands; replay the failure to go on from the last good page.",
    ),
    "html_answer": Reason(
        "An HTML page came instead of data, as Pipedrive's edge sends when it blocks or is in maintenance.",
        "The work waits and is tried again by itself; lower the request rate if it happens often.",
    ),
    "remote_unavailable": Reason(
        "The remote system could not be reached, took too long or answered with a server error.",
        "Tried again by itself with growing pauses; check the remote system's status page if it lasts.",
    ),
    "remote_waits": Reason(
        "The remote system does not answer, and one call at a time asks whether it does again; nothing was sent.",
        "Goes on by itself as soon as it answers; check the remote system's status page if it lasts.",
    ),
    "remote_unreachable": Reason(
        "No connection to the remote system could be made; nothing was sent.",
        "Tried again by itself; if it lasts, check name resolution, proxy and firewall. A host inside your network needs its "
        "port in the environment.",
    ),
    "body_too_large": Reason(
        "The answer was larger than any page of records can be, and was not read to its end.",
        "Ask the remote system's support; nothing of this answer was carried over.",
    ),
    "daily_budget_spent": Reason(
        "Pipedrive's daily budget of tokens is spent, by all users and apps of the company together, or kept for live work.",
        "Goes on by itself when the budget returns at Pipedrive's midnight; `pipeline budget CONNECTOR` shows what was spent here.",
    ),
    "host_refused": Reason(
        "A credential or a message names a host that may not be called.",
        "Connect again; if the host is right, add it to the allow-list in the environment.",
    ),
    "rate_limited": Reason(
        "Pipedrive asked for a pause: too many requests in two seconds, or too many tokens without saying so.",
        "Goes on by itself after the pause, which grows up to five minutes; if it lasts for hours, see what else uses the token.",
    ),
    "bad_request": Reason(
        "The remote system refused the request itself.",
        "Read the remote's words in the failure; a mapped field may have been deleted.",
    ),
    "unauthorized": Reason(
        "Unauthorized: the remote system no longer accepts the credentials.",
        "Open Credentials and connect again, to the same Pipedrive account; work waits and then goes on.",
    ),
    "forbidden": Reason(
        "The connected user may not do this.",
        "Connect with an administrator of Pipedrive, or widen the user's permissions.",
    ),
    "payment_required": Reason(
        "The company's account at the remote system is not open.", "Settle the account with the vendor, then resume."
    ),
    "credential_missing": Reason(
        "A credential of this connector was never stored.",
        "Add the connector again with its Hull secret and its Pipedrive token, then resume it.",
    ),
    "secret_unreadable": Reason(
        "A stored credential cannot be decrypted with the keys in force.",
        "Put the key it was encrypted with back into SECRET_KEYS, or store the credential again; then resume.",
    ),
    "hull_refused": Reason(
        "Hull refused the connector's id and secret.",
        "Check organization, connector id and secret in Hull, and add the connector again with the right ones.",
    ),
    # Authorisation
    "not_connected": Reason(
        "The connector is not connected to Pipedrive yet.",
        "Open Credentials and connect an administrator of Pipedrive; work waits and then goes on.",
    ),
    "uninstalled": Reason(
        "The app was uninstalled in Pipedrive by the user who had connected it.",
        "Open Credentials and connect again, to the same Pipedrive account; work waits and then goes on.",
    ),
    "authorisation_denied": Reason(
        "Access to Pipedrive was not granted.", "Open Credentials again and choose to allow; nothing was changed."
    ),
    "authorisation_expired": Reason(
        "This authorisation was not begun here, took longer than ten minutes, or was finished already.",
        "Open Credentials: it says whether Pipedrive is connected. If it is not, start over there.",
    ),
    "other_browser": Reason(
        "This authorisation was started in another browser, or this browser did not keep its cookie.",
        "Open this page's address in the browser in which you started; what was started there is kept for ten minutes. Or "
        "start over here: open Credentials in Hull, or ask for a new link, and stay in one browser to the end. If it is the "
        "same browser, allow cookies for this address.",
    ),
    "invitation_used": Reason(
        "This link was used already: it works in one browser, and until the connector is connected.",
        "If you used it, go on in that browser. If you did not, tell the person who sent it, who looks in the console under "
        "Credentials and makes a new link.",
    ),
    "authorisation_in_progress": Reason(
        "This authorisation is being finished at this moment, by the same answer of Pipedrive.",
        "Nothing to do: this page looks again by itself.",
    ),
    "code_refused": Reason(
        "Pipedrive did not turn the answer of the authorisation into access.",
        "Open Credentials again and start over. If it stays, whoever runs the connector compares PUBLIC_URL with the "
        "callback URL in the app's settings at Pipedrive.",
    ),
    "scope_missing": Reason(
        "The app may do less in Pipedrive than the connector needs.",
        "Whoever runs the connector adds the missing scopes in the app's settings at Pipedrive; then connect again.",
    ),
    "not_administrator": Reason(
        "Whoever authorised us is no administrator in Pipedrive, so webhooks and some records would stay out of reach.",
        "Sign in to Pipedrive as an administrator, or ask for those permissions first; then connect again.",
    ),
    "other_company": Reason(
        "This is another company than the one the connector belongs to: records of two companies would be mixed up.",
        "Sign in to the company the connector belongs to and connect again; for the other company add a connector.",
    ),
    "grant_malformed": Reason(
        "Pipedrive's answer held no usable tokens.", "Try again in a few minutes; if it stays, ask Pipedrive's support."
    ),
    "credentials_replaced": Reason(
        "The credentials were replaced while they were in use.", "Tried again by itself with the new ones."
    ),
    "app_missing": Reason(
        "This installation has no app at Pipedrive to authorise.",
        "Set PIPEDRIVE_CLIENT_ID and PIPEDRIVE_CLIENT_SECRET and restart; resume a connector that paused meanwhile.",
    ),
    "app_refused": Reason(
        "Pipedrive refused the client id and secret of the app.",
        "Correct PIPEDRIVE_CLIENT_ID and PIPEDRIVE_CLIENT_SECRET and restart; what waits goes on by itself.",
    ),
    # The engine
    "worker_lost": Reason(
        "The worker died on every attempt of this stage.",
        "Look for out-of-memory kills; replay after the cause is gone.",
    ),
    "job_kind_unknown": Reason(
        "The worker's version does not know this kind of job; another version of the pipeline wrote it.",
        "Run the same version everywhere, then replay the failure.",
    ),
    "job_unreadable": Reason(
        "The stored order or progress of a job cannot be read; another version of the pipeline wrote it.",
        "Discard the failure and start the work again.",
    ),
    "internal_error": Reason(
        "A defect of the pipeline itself.",
        "Keep the failure with its traceback and report it; replay after the fix.",
    ),
    "cancelled": Reason("An operator cancelled the run.", "Start a new fetch when wanted."),
    "connector_paused": Reason(
        "The connector is paused.", "Resume it with `pipeline connectors resume`; the waiting work then goes on."
    ),
    "run_in_progress": Reason(
        "A fetch of this kind is under way already.",
        "Nothing to do: it brings everything; cancel it first if a fresh one is wanted.",
    ),
    "database_unavailable": Reason(
        "PostgreSQL could not be reached, or broke off.",
        "Tried again by itself; check the database's health, connections and disk if it lasts.",
    ),
    "database_busy": Reason(
        "PostgreSQL gave up a statement: it took too long, waited too long for a lock, or had to give way to another one.",
        "Tried again by itself; if it lasts, look for long transactions and for what keeps the database's disk or CPU busy.",
    ),
    "broker_unavailable": Reason(
        "The message broker could not be reached, or broke off.",
        "Tried again by itself; check the broker if it lasts. No work is lost: it stands in PostgreSQL.",
    ),
    "interrupted": Reason(
        "The task was stopped before it had ended: it reached its time limit, or its worker process was shut down.",
        "Tried again by itself; if it lasts, look for a remote system that answers slowly.",
    ),
    "redis_unavailable": Reason(
        "Redis could not be reached, or broke off.",
        "Tried again by itself; check Redis if it lasts. No work is lost: it stands in PostgreSQL.",
    ),
    "stale_overwrite": Reason(
        "Two writers crossed: Hull showed an older value for a moment.",
        "Nothing to do: the newest state was sent again.",
    ),
    "lease_uncertain": Reason(
        "The worker could not extend its lease in time, so it stopped writing to the remote system before the lease ended.",
        "Goes on by itself; if it happens often, check the connection between the workers and PostgreSQL.",
    ),
    "slots_taken": Reason(
        "As many live batches as may call this remote system do so already, and it is slow to answer; nothing was sent.",
        "Goes on by itself in a second or so. If it lasts, check the remote system's status page, or start more live processes.",
    ),
    "time_is_up": Reason(
        "A batch had more to write than one task has time for.", "Nothing to do: the rest goes on in another task."
    ),
    "lease_lost": Reason(
        "Another worker took this batch over.", "Nothing to do; lengthen LEASE_S if it happens often."
    ),
}


def describe(code: str) -> str:
    """The meaning and the advice of a reason code, as one text."""
    reason = REASONS[code]
    return f"{reason.meaning} {reason.advice}"
