"""What goes in and what comes out, as read-only arrays; no formula."""
