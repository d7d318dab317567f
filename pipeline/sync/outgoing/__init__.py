"""The stages of outgoing batches, from Hull to Pipedrive. The modules in the order in which a record passes them:

extract       extract: each report with what is known of its record
resolve       which record a report belongs to
transform     transform: skipped, held, updated or created; the fields to write
load          load: writes, and stores the outcomes in one transaction
matching      load: looks up each record before it is created
lookup        the look-up itself: staged pages, lists, local index, search
write_checks  load: reads fields that Pipedrive may own, and leaves out values that another record holds
requeue       load: postpones what could not be sent
event_log     events and log lines
preview       what all of this would do with a report, without calls
"""
