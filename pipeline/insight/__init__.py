"""What people ask of the pipeline, and the answers as plain values: for pages, commands and programs alike.

A question is asked here once; whoever shows the answer only shows it.
"""
