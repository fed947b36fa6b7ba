"""Views of event records: text, counters."""
