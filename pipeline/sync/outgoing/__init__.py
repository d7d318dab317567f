"""Outgoing, from Hull to Pipedrive. The modules in the order in which a record passes them:

extract         extract: each report with the record it is mapped to
resolve         what our tables know about the records of some reports
hull_owner      the Hull id of a record, if only Hull knows it
transform       transform: skipped, held, updated or created
diff            the fields to write, and the rejected ones, of a known record
load            load: writes, and stores the outcomes in one transaction
matching        load: looks up each record before it is created
lookup          the look-up itself: staged pages, lists, local index, search
index_fetch     the fetch that records without another look-up wait for
known_by        the identifiers of a record, for all of these
refresh         load: reads the records with fields that Pipedrive may own
unique_values   load: leaves out identifying values that another record holds
requeue         load: postpones what could not be sent
preview         what all of this would do with a report, without calls
event_log       events and log lines
"""
