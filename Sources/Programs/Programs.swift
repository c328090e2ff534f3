// Empty: SwiftPM wants a source file in every target. `make build` builds what this one depends on, both programs.
