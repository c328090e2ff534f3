# make demo   renders examples/ at 4x on local workers
# make test   runs every test
# make bench  prints one JSON object with every figure of speed and memory
# make soak   runs what takes long; MODEL=DIR, an image-to-image pipeline of the real size, adds the autoencoder's tiles
# make fuzz   fuzzes what reads others' bytes; TARGET=messages, safetensors, settings or png, SECONDS=3600 (Tests/Fuzz/README.md)
.PHONY: setup lint build demo test bench soak fuzzer fuzz

PACKAGES = libopenblas-dev libpng-dev libssl-dev libzmq3-dev
BIN = .build/release

# Debian's packages, installed only where one is missing, so that later runs need neither root nor network.
setup:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing" $$missing; \
	  sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	fi
	@command -v swift >/dev/null || { echo "Swift 6.2 or later is needed: https://www.swift.org/install/linux"; exit 1; }

# .swift-format has the rules; `swift format --in-place --recursive Sources Tests Package.swift` mends most of what this finds.
lint:
	swift format lint --strict --recursive Sources Tests Package.swift

# By name: a build of everything would compile the plugins and tools of the packages too.
build: setup
	swift build -c release --target Programs

demo: build
	@mkdir -p demo
	@for picture in astronaut coffee; do $(BIN)/tilefarm upscale examples/$$picture.png -o demo/$$picture.png || exit 1; done
	@echo "The pictures are in demo/; examples/ has what they were made from."

# Release builds are tested: what is run is what was tested.
test: setup lint
	swift build -c release --build-tests
	swift test -c release --skip-build

bench: build
	@python3 Benchmarks/bench.py

soak: setup
	swift build -c release --build-tests
	TILEFARM_SOAK=1 TILEFARM_SOAK_MODEL=$(MODEL) swift test -c release --skip-build --filter Soak

# A build of its own, with libFuzzer, the address sanitizer and the toolchain's linker: gold fails on its debug information.
fuzzer: setup
	TILEFARM_FUZZER=1 swift build -c release --scratch-path .build/fuzzer --product Fuzzer -Xswiftc -sanitize=fuzzer,address -Xswiftc -use-ld=lld

TARGET = messages
SECONDS = 60
FUZZ = .build/fuzzer/$(TARGET)

# What is new goes to .build/fuzzer/TARGET, what fails too.
fuzz: fuzzer
	@mkdir -p $(FUZZ)/corpus
	FUZZ_TARGET=$(TARGET) ASAN_OPTIONS=symbolize=0:quarantine_size_mb=8 SWIFT_BACKTRACE=enable=no .build/fuzzer/release/Fuzzer \
	  -max_total_time=$(SECONDS) -max_len=8192 -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=10 -print_final_stats=1 -artifact_prefix=$(FUZZ)/ \
	  $(FUZZ)/corpus Tests/Fuzz/Corpus/$(TARGET)
