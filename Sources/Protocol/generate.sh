#!/bin/sh
# Makes Generated/farm.pb.swift from farm.proto, with the protoc on the PATH (Debian: protobuf-compiler) and the plugin of
# the swift-protobuf version that the package resolves to. Run it after every change of farm.proto and commit the result.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
checkout=$here/../../.build/checkouts/swift-protobuf
[ -d "$checkout" ] || swift package --package-path "$here/../.." resolve
swift build --package-path "$checkout" --product protoc-gen-swift
plugin=$(swift build --package-path "$checkout" --show-bin-path)/protoc-gen-swift
mkdir -p "$here/Generated"
protoc --plugin=protoc-gen-swift="$plugin" --proto_path="$here" \
    --swift_opt=Visibility=Internal --swift_opt=UseAccessLevelOnImports=true --swift_out="$here/Generated" farm.proto
