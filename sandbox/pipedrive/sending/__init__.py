"""What lies between an event and a subscriber: the timetable, the standing of each webhook, and trouble made on purpose."""
