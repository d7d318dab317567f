"""Reason codes with meaning and next step, as shown by the console, the API, the command line and the runbook.

Code cannot raise a code that is missing here: `tests/unit/test_reasons.py` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """`outgoing_advice` replaces `advice` for a record on its way to Pipedrive, when the next step is in Hull."""

    meaning: str
    advice: str
    outgoing_advice: str | None = None

    def advice_for(self, direction: str | None) -> str:
        """Return the next step for a record of this direction."""
        return self.outgoing_advice if direction == "outgoing" and self.outgoing_advice else self.advice


REASONS: dict[str, Reason] = {
    # Records
    "no_id": Reason(
        "The record has no usable id.",
        "Open the failure's payload: Pipedrive, or a proxy before it, sent something that is not a record.",
    ),
    "not_a_record": Reason(
        "An item of the list is not an object.",
        "Open the failure's payload: Pipedrive, or a proxy before it, sent something that is not a record.",
    ),
    "no_update_time": Reason(
        "The record has no readable update time, so its age cannot be compared.",
        "Save the record once in Pipedrive, then replay the failure.",
    ),
    "unusable_text": Reason(
        "A text contains characters that cannot be stored or sent: a NUL or half a surrogate pair.",
        "Correct the text in Pipedrive. The failure closes automatically; if it stays open, replay it.",
        "Correct the text in Hull. The failure closes automatically; if it stays open, replay it.",
    ),
    "too_long": Reason(
        "A value is longer than Hull or Pipedrive accepts.",
        "Shorten the value in Pipedrive; the record's other fields were synchronized.",
        "Shorten the value in Hull; the record's other fields were synchronized.",
    ),
    "wrong_type": Reason(
        "A field has a value of a different type than in its definition.",
        "Correct the value in Pipedrive, or map another field; the record's other fields were synchronized.",
        "Correct the value in Hull, or map another attribute; the record's other fields were synchronized.",
    ),
    "option_unknown": Reason(
        "A field names an option that its definition does not list.",
        "Add the option in Pipedrive, or choose another value there; it is then synchronized automatically. The record's other "
        "fields were synchronized.",
        "Add the option in Pipedrive, or choose another value in Hull; it is then synchronized automatically. The record's other "
        "fields were synchronized.",
    ),
    "option_ambiguous": Reason(
        "A value can be read as more than one option of the field.",
        "Send a list of labels instead of one text, or rename the options in Pipedrive so that each label is unique.",
    ),
    "field_missing": Reason(
        "A mapped field is not part of the record.",
        "The field was deleted in Pipedrive, or replaced by another one: correct the mapping in the settings.",
    ),
    "duplicate_claim": Reason(
        "Another record already holds this e-mail, domain or external id; this record is sent with its Pipedrive id alone.",
        "Merge the two records in Pipedrive, or correct the value on one of them. If the holder was deleted: restore it, or "
        "release its claims with pipeline mappings release CONNECTOR ENTITY ID; the waiting record then takes its place in Hull.",
    ),
    "needs_approval": Reason(
        "New settings would change more of the known records than change_stop_share allows, so the run has not started.",
        "Preview the changes with pipeline settings plan. Then approve the run under Plans, or with pipeline runs confirm "
        "CONNECTOR RUN; or restore the earlier settings and cancel the run.",
    ),
    "claim_released": Reason(
        "The record was deleted and no longer holds this e-mail, domain or external id; the record that waited is delivered again.",
        "Nothing to do: in Hull the waiting record takes over the User or Account that has this value.",
    ),
    "hull_id_reassigned": Reason(
        "Hull has one User or Account for this deleted record and an existing one; it now belongs to the existing record.",
        "Nothing to do; if the deleted record is restored, Hull cannot distinguish the two: see two_records_one_hull_id.",
    ),
    "shared_domain": Reason(
        "Many organizations use this host, or several Organizations have this domain, so it identifies none of them.",
        "Enter the organization's own web site in Pipedrive; until then it is sent with its Pipedrive id alone.",
        "Enter the organization's own domain in Hull; until then it is not matched by its domain.",
    ),
    "deleted_in_pipedrive": Reason(
        "The record is deleted in Pipedrive, so it is not sent to Hull and not written to.",
        "Nothing to do; restore it in Pipedrive if it should be synchronized.",
    ),
    "unchanged": Reason("No mapped value differs from what was last synchronized.", "Nothing to do."),
    "shell_created": Reason(
        "A Person references an Organization that was not known yet; an empty Account was created for it.",
        "Nothing to do: it is read within a minute or two, or by the fetch of Organizations that is in flight.",
    ),
    "gone": Reason(
        "Pipedrive no longer has this record, or it is not visible to the connected user.",
        "Check the record in Pipedrive; restore it or widen its visibility if it should be synchronized.",
    ),
    "deleted": Reason(
        "The record was deleted in Pipedrive.",
        "Nothing to do: with support for deletions on, Hull shows when; if it is restored, it is synchronized again automatically.",
    ),
    "deletion_not_supported": Reason(
        "The record was deleted in Pipedrive, and support for deletions is off in the settings.",
        "Nothing to do; switch on support for deletions in the settings to mark later ones in Hull.",
    ),
    "merged": Reason(
        "The record was merged into another one in Pipedrive, and Hull was requested to do the same.",
        "Nothing to do: the other record was read and delivered again.",
    ),
    "merge_not_applied": Reason(
        "The record was merged into another one in Pipedrive, but Hull keeps the two apart: their external ids differ.",
        "Merge the two in Hull, or correct the external id; until then the merged record is treated as deleted.",
    ),
    "too_many_missing": Reason(
        "Many known records are missing from a full fetch, too many to mark them as deleted without a check.",
        "Check what the connected user may see in Pipedrive. If the records were deleted, replay the failure; if not, discard it.",
    ),
    "not_synchronized": Reason(
        "The webhook is about something that is neither a Person nor an Organization.",
        "Nothing to do; to stop these webhooks, subscribe to persons and organizations only.",
    ),
    "gap_repaired": Reason(
        "Records had changed in Pipedrive without a webhook; the incremental fetch sent them to Hull.",
        "Nothing is missing. If it happens again, check the webhooks: pipeline connectors webhooks CONNECTOR.",
    ),
    "several_ids": Reason(
        "Hull has several existing records of Pipedrive under one User or Account.",
        "Merge these records in Pipedrive, or split the User in Hull; then replay the failure.",
    ),
    "already_mapped": Reason(
        "The record that matches the claim is mapped to another User or Account in Hull.",
        "Merge the two in Hull, or correct the claim on one of them; then replay the failure.",
    ),
    "hull_id_unknown": Reason(
        "The matching record is in Hull already, but Hull does not show yet which User or Account it is.",
        "Nothing to do: Hull is queried again. If this is a failure, Hull never showed it; replay the failure.",
    ),
    "held_by_another": Reason(
        "Another record of Pipedrive holds this e-mail, domain or external id, so it was not written a second time.",
        "Merge the two records in Pipedrive, or correct the value on one of them; then send the record again.",
    ),
    "update_loop_detected": Reason(
        "Update loop: values of a field go back and forth between Hull and Pipedrive, because two rules undo each other.",
        "Change one of the rules that the failure names, here or in the other system; then replay it.",
    ),
    "claim_reserved": Reason(
        "Another User or Account with the same claim is being created in Pipedrive right now.",
        "Nothing to do: it is looked up again soon. If this is a failure, replay the failure of the other record first.",
    ),
    "mapped_concurrently": Reason(
        "Another worker mapped the record a moment ago.",
        "Nothing to do: the work continues with the new mapping.",
    ),
    "index_incomplete": Reason(
        "The first full fetch, or the backfill for new identifiers, has not ended: the record may be in Pipedrive already.",
        "Nothing to do: waiting records continue when it ends. If it stopped, replay its failure; if it is held, approve it.",
    ),
    "index_behind": Reason(
        "More changed in Pipedrive than a look-up can list, so it is not known yet whether Pipedrive has such a record.",
        "Nothing to do: the fetch of changes was started, and waiting records continue when it ends.",
    ),
    "changed_in_pipedrive": Reason(
        "The field was changed in Pipedrive and not in Hull, so Pipedrive's value is kept.",
        "Nothing to do: the incoming mapping of the field sends the change to Hull.",
    ),
    "owned_by_pipedrive": Reason(
        "The field was changed on both sides, and Pipedrive's value wins, as set in the settings.",
        "Nothing to do; choose another owner for the field in the settings if Hull should win.",
    ),
    "changed_by_pipedrive": Reason(
        "Pipedrive stored another value than the one written: it normalized the value, or ignored it.",
        "Compare the event's values with the record; if the value was ignored, check the field in Pipedrive.",
    ),
    "webhook_malformed": Reason(
        "The body does not have the format of Pipedrive's webhooks of version 2.0.",
        "The event names the delivery, which keeps the body for 30 days; check that no proxy rewrites webhooks.",
    ),
    "webhook_without_id": Reason(
        "The body is longer than a megabyte, or not JSON, and no record id was found in it.",
        "Nothing is lost: the fetch of changes was started and reads what changed. The event names the delivery.",
    ),
    "webhook_unreadable": Reason(
        "The body is longer than a megabyte, nested too deeply or not JSON; only the record's id was found in it.",
        "Nothing is lost: its record is read again. The event names the delivery, which keeps the body for 30 days.",
    ),
    "webhook_old_format": Reason(
        "The webhook is of version 1.0, which has another format.",
        "Nothing is lost: its record is read again. Delete the webhook of version 1.0 in Pipedrive; ours is of 2.0.",
    ),
    "webhook_future_dated": Reason(
        "The webhook has a time in the future of the database's clock, so it is not known whether it is the newest.",
        "Nothing is lost: its record is read again. If it happens often, check the clock of the database's machine.",
    ),
    "webhook_other_company": Reason(
        "The webhook comes from another Pipedrive company than the connector's: its ids belong to other records.",
        "Delete the webhook to this address in the other company.",
    ),
    "webhook_missing": Reason(
        "Pipedrive no longer had a webhook to this connector; it deletes one that failed for three days.",
        "It is recreated automatically, and what changed since is fetched; keep PUBLIC_URL reachable from outside.",
    ),
    "webhook_paused": Reason(
        "Pipedrive has paused the webhook, as it does for 30 minutes after ten failed deliveries.",
        "It is recreated automatically, and what changed since is fetched; check in the web log why deliveries failed.",
    ),
    "webhook_moved": Reason(
        "The webhook had another address, other events or older credentials.",
        "It is recreated automatically, and what changed since is fetched; do not edit the connector's webhooks.",
    ),
    "webhook_failing": Reason(
        "The last delivery of the webhook was not answered with success.",
        "It is recreated automatically, and what changed since is fetched; check in the web log why deliveries failed.",
    ),
    "webhook_silent": Reason(
        "Records changed in Pipedrive, but no webhook arrived.",
        "It is recreated automatically; check that nothing between Pipedrive and PUBLIC_URL drops requests.",
    ),
    "webhook_recreated": Reason(
        "The webhook was recreated, and what changed since it was last healthy is fetched.", "Nothing to do."
    ),
    "webhooks_forbidden": Reason(
        "The connected user may not manage webhooks, so only fetches bring changes.",
        "Connect as an administrator of Pipedrive; all other work continues.",
    ),
    "two_records_one_hull_id": Reason(
        "Hull has merged two records that are still separate in Pipedrive.",
        "Merge them in Pipedrive too, or split them in Hull; until then only the first one is sent back.",
    ),
    # Outgoing
    "ambiguous_match": Reason(
        "Several records in Pipedrive match the claim that was looked up, so none was chosen.",
        "Merge them in Pipedrive, or correct the claim on those that should not match; then replay the failure.",
    ),
    "older_report": Reason(
        "Hull sent a newer report of this record that was processed already.",
        "Nothing to do: the newer report is used.",
    ),
    "possible_duplicate": Reason(
        "Possible duplicate: a record was created here, and another one with the same claim was found afterwards.",
        "Compare the two records in Pipedrive, and merge them if they are duplicates.",
    ),
    "not_in_segment": Reason(
        "The record is in none of the synchronized segments.",
        "Add one of its segments to the synchronized segments in the settings, or add the record to one of them.",
    ),
    "no_outgoing_mapping": Reason(
        "The settings have no outgoing attributes.",
        "Add outgoing attributes in the settings. Until then, only records that enter a segment, are linked to an Account "
        "or are sent manually are sent, without attributes.",
    ),
    "no_relevant_change": Reason(
        "Something changed in Hull, but no mapped attribute did, and Pipedrive has all mapped values already.",
        "Nothing to do; add the attribute to the outgoing attributes in the settings if it should be sent.",
    ),
    "no_change": Reason(
        "Hull sent the record without a change, and Pipedrive has all mapped values already.",
        "Nothing to do.",
    ),
    "part_missing": Reason(
        "An amount has no currency, or a range has no end: Pipedrive refuses both.",
        "Map the other part too: the field's code followed by `_currency` or `_until`.",
    ),
    "currency_unknown": Reason(
        "An amount has no currency, and the default currency of the Pipedrive account is not known yet.",
        "It is read from Pipedrive with the field definitions; if the problem persists, map the currency too.",
    ),
    "field_refused": Reason(
        "Pipedrive refused the value of this field; the record's other fields were written.",
        "Read Pipedrive's message in the detail: correct the value in Hull or the field in Pipedrive, then replay.",
    ),
    "mapping_conflict": Reason(
        "Two rows of the mapping write the same field of Pipedrive, so one of them is ignored.",
        "Delete one of the two rows in the settings; new settings with such rows are refused.",
    ),
    "not_writable": Reason(
        "Pipedrive sets this mapped field itself and accepts no value for it.",
        "Remove the field from the outgoing attributes, or map another one.",
    ),
    "name_missing": Reason(
        "Pipedrive needs a name for each record, and Hull has none.",
        "Give the User a name, e-mail or external id, or the Account a name, domain or external id. If a name is mapped, give "
        "the mapped attribute a value.",
    ),
    "no_hull_id": Reason(
        "A message from Hull has no id of the User or Account.",
        "Send the record again from Hull; if the problem persists, report the message to Hull.",
    ),
    "not_in_hull": Reason(
        "Hull has no User or Account with this id.",
        "Copy the id from the end of its page's address in Hull.",
    ),
    "nested_too_deeply": Reason(
        "A message from Hull is nested too deeply to be stored.",
        "Flatten the attribute at its source, then send the record again from Hull; the other records were accepted.",
    ),
    "refused_by_pipedrive": Reason(
        "Pipedrive refused the write.",
        "Read Pipedrive's message in the failure, correct the value at its source, then replay.",
    ),
    # Hull's side
    "settings_refused": Reason(
        "Settings that were saved in Hull are invalid; the earlier settings stay in force.",
        "Correct the listed mistakes in Hull, and save again.",
    ),
    "export_malformed": Reason(
        "A selection that was sent from Hull has no address, no known format or no kind of record.",
        "Send it again from Hull; if the problem persists, report it to Hull.",
    ),
    "export_host_refused": Reason(
        "The file of a selection that was sent from Hull is on a host that is not allow-listed.",
        "If it is Hull's own storage, add its host to HULL_EXPORT_HOSTS, restart, and send the selection again.",
    ),
    "export_gone": Reason(
        "The file of a selection that was sent from Hull does not exist, or access to it is denied.",
        "Send the selection again from Hull: such files are kept for a short time only.",
    ),
    "export_too_large": Reason(
        "The file of a selection that was sent from Hull is too large.",
        "Send smaller selections: a file may have at most 1 GiB.",
    ),
    "export_too_slow": Reason(
        "The file of a selection downloads too slowly: its server cannot resume a download, and it takes more than three minutes.",
        "Retried automatically. If it persists, send smaller selections, or check the network between this host and the server.",
    ),
    "export_line_broken": Reason(
        "A line of the file that was sent from Hull is not a User or Account.",
        "Send that record separately; the other lines were accepted.",
    ),
    # Pages and connections
    "page_not_json": Reason(
        "Pipedrive's answer was not JSON, or was cut off.",
        "Retried automatically; if it persists, check the excerpt in the failure and Pipedrive's status page.",
    ),
    "page_malformed": Reason(
        "Pipedrive's answer has no list of records.",
        "Check the excerpt in the failure; if it persists, ask Pipedrive's support.",
    ),
    "page_repeats": Reason(
        "Pipedrive returned the same page cursor twice, so the fetch would never end.",
        "The run was stopped. Replay the failure to continue from the last complete page.",
    ),
    "html_answer": Reason(
        "Pipedrive sent an HTML page instead of data, as it does when it blocks requests or is in maintenance.",
        "The work waits and is retried automatically; lower the request rate if it happens often.",
    ),
    "remote_unavailable": Reason(
        "The remote system could not be reached, took too long or answered with a server error.",
        "Retried automatically with growing pauses; check the remote system's status page if it lasts.",
    ),
    "remote_outage": Reason(
        "The remote system does not answer; one call at a time checks whether it does again. Nothing was sent.",
        "Continues automatically as soon as it answers; check the remote system's status page if it lasts.",
    ),
    "remote_unreachable": Reason(
        "No connection to the remote system could be made; nothing was sent.",
        "Retried automatically; if it lasts, check name resolution, proxy and firewall. A host inside your network needs its "
        "port in the environment.",
    ),
    "body_too_large": Reason(
        "The answer was larger than a page of records can be, so it was not read completely.",
        "Nothing of this answer was used. Ask the remote system's support.",
    ),
    "daily_budget_spent": Reason(
        "Pipedrive's daily token budget is spent by all users and apps of the company, or the rest is reserved for live work.",
        "Continues automatically at Pipedrive's midnight; `pipeline budget CONNECTOR` shows what was spent here.",
    ),
    "host_refused": Reason(
        "A credential or a message names a host that is not allow-listed.",
        "Connect again. If the host is right, add it to the allow-list in the environment.",
    ),
    "rate_limited": Reason(
        "Pipedrive limits the rate: too many requests in two seconds, or too many tokens.",
        "Continues automatically after a pause of up to five minutes; if it lasts for hours, check what else uses the token.",
    ),
    "bad_request": Reason(
        "The remote system refused the request itself.",
        "Read the remote system's message in the failure; a mapped field may have been deleted.",
    ),
    "unauthorized": Reason(
        "Unauthorized: the remote system no longer accepts the credentials.",
        "Open Credentials and connect again, to the same Pipedrive account; waiting work then continues.",
    ),
    "forbidden": Reason(
        "The connected user has no permission for this.",
        "Connect with an administrator of Pipedrive, or widen the user's permissions.",
    ),
    "payment_required": Reason(
        "The remote system requires a payment for the company's account.",
        "Pay the vendor's bill, then resume the connector.",
    ),
    "credential_missing": Reason(
        "A credential of this connector was never stored.",
        "Add the connector again with its Hull secret and its Pipedrive token, then resume it.",
    ),
    "secret_unreadable": Reason(
        "A stored credential cannot be decrypted with the current SECRET_KEYS.",
        "Add the key it was encrypted with to SECRET_KEYS again, or store the credential again; then resume.",
    ),
    "hull_refused": Reason(
        "Hull refused the connector's id and secret.",
        "Check organization, connector id and secret in Hull, and add the connector again with the right ones.",
    ),
    # Authorisation
    "not_connected": Reason(
        "The connector is not connected to Pipedrive yet.",
        "Open Credentials and connect as an administrator of Pipedrive; waiting work then continues.",
    ),
    "uninstalled": Reason(
        "The app was uninstalled in Pipedrive by the user who had connected it.",
        "Open Credentials and connect again, to the same Pipedrive account; waiting work then continues.",
    ),
    "authorisation_denied": Reason(
        "Access to Pipedrive was not granted.", "Open Credentials again and allow access; nothing was changed."
    ),
    "authorisation_expired": Reason(
        "This authorisation was not started here, took longer than ten minutes, or was finished already.",
        "Open Credentials: it shows whether Pipedrive is connected. If it is not, start over there.",
    ),
    "other_browser": Reason(
        "This authorisation was started in another browser, or this browser did not keep its cookie.",
        "Open this page's address in the browser where you started; it is valid there for ten minutes. Or start over "
        "here: open Credentials in Hull, or ask for a new link, and use one browser only. If it is the same browser, "
        "allow cookies for this address.",
    ),
    "invitation_used": Reason(
        "This link was used already: it works in one browser only, until the connector is connected.",
        "If you used it, continue in that browser. If you did not, inform the person who sent it: they check Credentials in "
        "the console and create a new link.",
    ),
    "authorisation_in_progress": Reason(
        "This authorisation is being completed right now, by the same answer of Pipedrive.",
        "Nothing to do: this page reloads automatically.",
    ),
    "code_refused": Reason(
        "Pipedrive refused the authorisation code.",
        "Open Credentials again and start over. If the problem persists, the operator compares PUBLIC_URL with the "
        "callback URL in the app's settings at Pipedrive.",
    ),
    "scope_missing": Reason(
        "The app has fewer scopes in Pipedrive than the connector needs.",
        "The operator adds the missing scopes in the app's settings at Pipedrive; then connect again.",
    ),
    "not_administrator": Reason(
        "The user who authorised the app is not a Pipedrive administrator, so webhooks and some records are not accessible.",
        "Sign in to Pipedrive as an administrator, or get those permissions first; then connect again.",
    ),
    "other_company": Reason(
        "The connector belongs to another Pipedrive company: records of two companies would be mixed up.",
        "Sign in to the connector's company and connect again; for the other company, add another connector.",
    ),
    "grant_malformed": Reason(
        "Pipedrive's answer contained no usable tokens.",
        "Try again in a few minutes; if the problem persists, ask Pipedrive's support.",
    ),
    "credentials_replaced": Reason(
        "The credentials were replaced while they were in use.", "Retried automatically with the new ones."
    ),
    "app_missing": Reason(
        "No Pipedrive app is configured in this installation.",
        "Set PIPEDRIVE_CLIENT_ID and PIPEDRIVE_CLIENT_SECRET and restart; then resume paused connectors.",
    ),
    "app_refused": Reason(
        "Pipedrive refused the client id and secret of the app.",
        "Correct PIPEDRIVE_CLIENT_ID and PIPEDRIVE_CLIENT_SECRET and restart; waiting work then continues automatically.",
    ),
    # The engine
    "worker_lost": Reason(
        "The worker was killed on every attempt of this stage.",
        "Check whether the system killed it for lack of memory. Fix the cause, then replay the failure.",
    ),
    "job_kind_unknown": Reason(
        "The worker's version does not know this kind of job; another version of the pipeline wrote it.",
        "Run the same version everywhere, then replay the failure.",
    ),
    "job_unreadable": Reason(
        "The stored parameters or progress of a job cannot be read; another version of the pipeline wrote them.",
        "Discard the failure and start the work again.",
    ),
    "internal_error": Reason(
        "A defect in the pipeline itself.",
        "Report the failure with its traceback. Replay it when the defect is fixed.",
    ),
    "cancelled": Reason("An operator cancelled the run.", "Start a new fetch if you need one."),
    "connector_paused": Reason(
        "The connector is paused.", "Resume it with `pipeline connectors resume`; waiting work then continues."
    ),
    "run_in_progress": Reason(
        "A fetch of this kind is already in flight.",
        "Nothing to do: it fetches everything; to start a new one, cancel it first.",
    ),
    "database_unavailable": Reason(
        "PostgreSQL could not be reached, or the connection was lost.",
        "Retried automatically; check the database's health, connections and disk if it lasts.",
    ),
    "database_busy": Reason(
        "PostgreSQL cancelled a statement: it took too long, waited too long for a lock, or was part of a deadlock.",
        "Retried automatically; if it lasts, check for long transactions and for load on the database's disk or CPU.",
    ),
    "broker_unavailable": Reason(
        "The message broker could not be reached, or the connection was lost.",
        "Retried automatically; check the broker if it lasts. No work is lost: it is stored in PostgreSQL.",
    ),
    "interrupted": Reason(
        "The task was stopped before it ended: it reached its time limit, or its worker process was shut down.",
        "Retried automatically; if it lasts, check for a remote system that answers slowly.",
    ),
    "redis_unavailable": Reason(
        "Redis could not be reached, or the connection was lost.",
        "Retried automatically; check Redis if it lasts. No work is lost: it is stored in PostgreSQL.",
    ),
    "stale_overwrite": Reason(
        "Two workers wrote the same record: Hull had an older value for a moment.",
        "Nothing to do: the newest state was sent again.",
    ),
    "lease_uncertain": Reason(
        "The worker could not extend its lease in time, so it stopped writing to the remote system before the lease ended.",
        "Continues automatically; if it happens often, check the connection between the workers and PostgreSQL.",
    ),
    "slots_taken": Reason(
        "The maximum number of live batches already calls this remote system, and it answers slowly; nothing was sent.",
        "Continues automatically in about a second. If it lasts, check the remote system's status page or start more live workers.",
    ),
    "time_limit_reached": Reason(
        "A batch had more to write than one task has time for.",
        "Nothing to do: another task writes the rest.",
    ),
    "lease_lost": Reason(
        "Another worker took over this batch.", "Nothing to do; increase LEASE_S if it happens often."
    ),
}


def describe(code: str, direction: str | None = None) -> str:
    """Return the meaning and the advice of a reason code, as one text; `direction` is that of the record."""
    reason = REASONS[code]
    return f"{reason.meaning} {reason.advice_for(direction)}"


def meaning_of(code: str | None) -> str:
    """Return the meaning of a reason code; the code itself if it is unknown, as one that another version wrote; None: empty."""
    return REASONS[code].meaning if code in REASONS else code or ""


def advice_of(code: str | None, direction: str | None = None) -> str:
    """Return the next step for a reason code and a record's direction; empty if the code is unknown or None."""
    return REASONS[code].advice_for(direction) if code in REASONS else ""
