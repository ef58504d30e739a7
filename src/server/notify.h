// Tells a service manager how far the server is: systemd's Type=notify and Type=notify-reload.
#pragma once

// notify_manager sends a state in the words of sd_notify(3), such as "READY=1". Nothing is done where $NOTIFY_SOCKET is not set.
void notify_manager(const char *state);

// notify_reloading says that a reload begins; "READY=1" ends it.
void notify_reloading(void);
