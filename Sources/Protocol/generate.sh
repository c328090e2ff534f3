#!/bin/sh
# Makes Generated/farm.pb.swift from farm.proto, and the tests' copy of operations.proto, with the protoc on the PATH (Debian:
# protobuf-compiler) and the plugin of the swift-protobuf version that the package resolves to. Run it after every change of a
# .proto file and commit the result. PLUGIN=FILE takes a plugin that is built already.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
if [ -z "${PLUGIN:-}" ]; then
    checkout=$root/.build/checkouts/swift-protobuf
    [ -d "$checkout" ] || swift package --package-path "$root" resolve
    swift build --package-path "$checkout" --product protoc-gen-swift
    PLUGIN=$(swift build --package-path "$checkout" --show-bin-path)/protoc-gen-swift
fi
generate() {
    mkdir -p "$2"
    protoc --plugin=protoc-gen-swift="$PLUGIN" --proto_path="$here" \
        --swift_opt=Visibility=Internal --swift_opt=UseAccessLevelOnImports=true --swift_out="$2" "$1"
}
generate farm.proto "$here/Generated"
generate operations.proto "$root/Tests/ProtocolTests/Generated"
