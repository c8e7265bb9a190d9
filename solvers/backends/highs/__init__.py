"""Mixed-integer linear programs of proven lines, by HiGHS."""
