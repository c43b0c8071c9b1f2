module pulseboard.dev/pulse/tests/tools/pause

go 1.26.0
