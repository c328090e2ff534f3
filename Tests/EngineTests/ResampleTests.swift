import Engine
import Testing

@Suite("Bicubic resampling")
struct ResampleTests {
    /// Upsamples a window of `image` (height x width x channels) from the crop given, or from the least one.
    private func upsample(
        _ image: [Float], channels: Int, _ upsampler: BicubicUpsampler, window: Rect, crop: Rect? = nil,
        kernels: KernelSet = .best
    ) throws -> [Float] {
        let rect = try crop ?? upsampler.sourceRect(for: window)
        var values: [Float] = []
        for y in rect.y..<rect.maxY {
            let row = (y * upsampler.inputWidth + rect.x) * channels
            values += image[row..<row + rect.width * channels]
        }
        var output = [Float](repeating: .nan, count: window.area * channels)
        var span = output.mutableSpan
        try upsampler.upsample(
            crop: values.span, cropRect: rect, channels: channels, window: window, into: &span, kernels: kernels)
        return output
    }

    private func whole(_ upsampler: BicubicUpsampler) -> Rect {
        Rect(y: 0, x: 0, height: upsampler.outputHeight, width: upsampler.outputWidth)
    }

    private func randomUpsampler(using random: inout SplitMix64) throws -> BicubicUpsampler {
        let (height, width) = (Int.random(in: 1...12, using: &random), Int.random(in: 1...12, using: &random))
        let square = Bool.random(using: &random)
        return try BicubicUpsampler(
            inputHeight: height, inputWidth: width,
            outputHeight: square ? height * 4 : .random(in: height...5 * height, using: &random),
            outputWidth: square ? width * 4 : .random(in: width...5 * width, using: &random))
    }

    @Test("a pixel has the same bits whatever the window and the crop, outside the image those of its mirror image")
    func windows() throws {
        var random = SplitMix64(seed: 21)
        for _ in 0..<300 {
            let upsampler = try randomUpsampler(using: &random)
            let channels = Int.random(in: 1...4, using: &random)
            let (height, width) = (upsampler.outputHeight, upsampler.outputWidth)
            let image = (0..<upsampler.inputHeight * upsampler.inputWidth * channels)
                .map { _ in Float.random(in: 0...1, using: &random) }
            let all = try upsample(image, channels: channels, upsampler, window: whole(upsampler))
            for _ in 0..<5 {
                let window = Rect(
                    y: .random(in: -3 * height...3 * height, using: &random),
                    x: .random(in: -3 * width...3 * width, using: &random),
                    height: .random(in: 1...2 * height, using: &random),
                    width: .random(in: 1...2 * width, using: &random))
                let full = Rect(y: 0, x: 0, height: upsampler.inputHeight, width: upsampler.inputWidth)
                let part = try upsample(image, channels: channels, upsampler, window: window)
                #expect(try part == upsample(image, channels: channels, upsampler, window: window, crop: full))
                for y in 0..<window.height {
                    for x in 0..<window.width {
                        let source = (mirror(window.y + y, height) * width + mirror(window.x + x, width)) * channels
                        let got = (y * window.width + x) * channels
                        guard part[got..<got + channels].elementsEqual(all[source..<source + channels]) else {
                            Issue.record("\(upsampler), \(window): differs at \(y), \(x)")
                            return
                        }
                    }
                }
            }
        }
    }

    /// d c b a | a b c d | d c b a, one step at a time.
    private func mirror(_ place: Int, _ count: Int) -> Int {
        var place = place
        while place < 0 || place >= count { place = place < 0 ? -1 - place : 2 * count - 1 - place }
        return place
    }

    /// Four input places and their weights, as Keys has them.
    private func taps(_ place: Int, input: Int, output: Int) -> [(source: Int, weight: Float)] {
        let numerator = (2 * mirror(place, output) + 1) * input - output
        let whole = numerator < 0 ? -1 : numerator / (2 * output)
        let phase = Double(numerator - whole * 2 * output) / Double(2 * output)
        return (-1...2).map { k in
            let x = abs(phase - Double(k))
            let weight = x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
            return (mirror(whole + k, input), Float(weight))
        }
    }

    /// Sums of four products from left to right, of rows and then of columns.
    private func definition(_ image: [Float], channels: Int, _ upsampler: BicubicUpsampler, window: Rect) -> [Float] {
        func sum(_ taps: [(source: Int, weight: Float)], _ value: (Int) -> Float) -> Float {
            taps.dropFirst().reduce(taps[0].weight * value(taps[0].source)) { $0 + $1.weight * value($1.source) }
        }
        let columns = (window.x..<window.maxX).map {
            taps($0, input: upsampler.inputWidth, output: upsampler.outputWidth)
        }
        var rows: [Int: [Float]] = [:]
        func wide(_ y: Int) -> [Float] {
            if let row = rows[y] { return row }
            let row = columns.flatMap { taps in
                (0..<channels).map { c in sum(taps) { image[(y * upsampler.inputWidth + $0) * channels + c] } }
            }
            rows[y] = row
            return row
        }
        return (window.y..<window.maxY).flatMap { y in
            let taps = taps(y, input: upsampler.inputHeight, output: upsampler.outputHeight),
                near = taps.map { wide($0.source) }
            let places = zip(0..., taps).map { (source: $0, weight: $1.weight) }
            return (0..<window.width * channels).map { x in sum(places) { near[$0][x] } }
        }
    }

    @Test(
        "whatever the kernels, the bits are those of the definition, at the edges and beyond them too",
        arguments: KernelSet.available)
    func bits(kernels: KernelSet) throws {
        var random = SplitMix64(seed: 23)
        // Input height and width, output height and width: scales of 1, 2.5, 4 and others, wider than what is done at a
        // time.
        var sizes = [(3, 300, 12, 1200), (5, 700, 5, 700), (4, 260, 10, 650), (2, 401, 7, 1103), (1, 1, 4, 1600)].map {
            ($0, channels: [1, 3, 4])
        }
        for _ in 0..<60 {
            let upsampler = try randomUpsampler(using: &random)
            sizes.append(
                (
                    (upsampler.inputHeight, upsampler.inputWidth, upsampler.outputHeight, upsampler.outputWidth),
                    [.random(in: 1...9, using: &random)]
                ))
        }
        for ((inputHeight, inputWidth, outputHeight, outputWidth), channelCounts) in sizes {
            let upsampler = try BicubicUpsampler(
                inputHeight: inputHeight, inputWidth: inputWidth, outputHeight: outputHeight, outputWidth: outputWidth)
            for channels in channelCounts {
                var image = (0..<inputHeight * inputWidth * channels).map { _ in
                    Float.random(in: -1...1, using: &random)
                }
                // What is not finite is never lost.
                if Bool.random(using: &random), let place = image.indices.randomElement(using: &random) {
                    image[place] = .nan
                }
                let windows = [
                    whole(upsampler),
                    Rect(
                        y: .random(in: -outputHeight...outputHeight, using: &random),
                        x: .random(in: -outputWidth...outputWidth, using: &random),
                        height: .random(in: 1...2 * outputHeight, using: &random),
                        width: .random(in: 1...2 * outputWidth, using: &random)),
                ]
                for window in windows {
                    let values = try upsample(image, channels: channels, upsampler, window: window, kernels: kernels)
                    let expected = definition(image, channels: channels, upsampler, window: window)
                    guard values.elementsEqual(expected, by: { $0.bitPattern == $1.bitPattern || $0.isNaN && $1.isNaN })
                    else {
                        Issue.record("\(upsampler), \(window), \(channels) channels: other bits")
                        return
                    }
                }
            }
        }
    }

    @Test(
        "rows of any length and place are weighed, and nothing beside them is touched", arguments: KernelSet.available)
    func weighedRows(kernels: KernelSet) {
        var random = SplitMix64(seed: 24)
        let weights = SIMD4<Float>(-0.07, 0.86, 0.23, -0.02)
        for count in 0...70 {
            let values = (0..<count + 40).map { _ in Float.random(in: -1...1, using: &random) }
            let starts = SIMD4<Int>(40, 0, 13, 13), target = Int.random(in: 0...5, using: &random)
            var output = [Float](repeating: 7, count: count + 10)
            var expected = output
            for i in 0..<count {
                var sum = weights[0] * values[starts[0] + i]
                for k in 1..<4 { sum += weights[k] * values[starts[k] + i] }
                expected[target + i] = sum
            }
            var span = output.mutableSpan
            WeightedRows.sum(
                values.span, from: starts, weights: weights, count: count, into: &span, at: target, kernels: kernels)
            #expect(output == expected)
        }
    }

    @Test("a window needs no more than its source rectangle, and all of it")
    func sources() throws {
        var random = SplitMix64(seed: 22)
        for _ in 0..<200 {
            let upsampler = try randomUpsampler(using: &random)
            let (height, width) = (upsampler.outputHeight, upsampler.outputWidth)
            let window = Rect(
                y: .random(in: -height...height, using: &random), x: .random(in: -width...width, using: &random),
                height: .random(in: 1...height, using: &random), width: .random(in: 1...width, using: &random))
            let rect = try upsampler.sourceRect(for: window)
            #expect(Rect(y: 0, x: 0, height: upsampler.inputHeight, width: upsampler.inputWidth).contains(rect))
            var rows = Set<Int>()
            for y in window.y..<window.maxY {
                let below = Double(2 * mirror(y, height) + 1) * Double(upsampler.inputHeight) / Double(2 * height) - 0.5
                let base = Int((below + 1e-9).rounded(.down))
                for k in -1...2 { rows.insert(mirror(base + k, upsampler.inputHeight)) }
            }
            #expect(rows.min() == rect.y && rows.max() == rect.maxY - 1)
        }
    }

    @Test("a parabola is upsampled exactly away from the edges")
    func parabola() throws {
        let upsampler = try BicubicUpsampler(inputHeight: 12, inputWidth: 10, outputHeight: 48, outputWidth: 25)
        func value(_ y: Double, _ x: Double) -> Double { 0.2 + 0.01 * y * y - 0.03 * x * x + 0.02 * x * y }
        let image = (0..<120).map { Float(value(Double($0 / 10), Double($0 % 10))) }
        let result = try upsample(image, channels: 1, upsampler, window: whole(upsampler))
        for y in 8..<40 {
            for x in 5..<20 {
                let expected = value((Double(y) + 0.5) / 4 - 0.5, (Double(x) + 0.5) / 2.5 - 0.5)
                #expect(abs(Double(result[y * 25 + x]) - expected) < 1e-6)
            }
        }
    }

    @Test("equal sizes change nothing and a flat image stays flat")
    func identities() throws {
        let image = ramp(width: 9, height: 7)
        let same = try BicubicUpsampler(inputHeight: 7, inputWidth: 9, outputHeight: 7, outputWidth: 9)
        #expect(try upsample(image, channels: 1, same, window: whole(same)) == image)
        let larger = try BicubicUpsampler(inputHeight: 7, inputWidth: 9, outputHeight: 23, outputWidth: 31)
        let flat = try upsample([Float](repeating: 0.7, count: 63), channels: 1, larger, window: whole(larger))
        #expect(flat.allSatisfy { abs($0 - 0.7) < 1e-6 })
    }

    // Pillow 13:
    //   ramp = numpy.float32([[(x*37 + y*91 + x*y*13) % 101 / 100 for x in range(w)] for y in range(h)])
    //   Image.fromarray(ramp, 'F').resize((W, H), Image.BICUBIC)
    private func ramp(width: Int, height: Int) -> [Float] {
        (0..<width * height).map { i in
            let (x, y) = (i % width, i / width)
            return Float((x * 37 + y * 91 + x * y * 13) % 101) / 100
        }
    }

    private static let from7x6To10x8: [Float] = [
        -0.07273266, 0.1506371, 0.4866167, 0.7363321, 0.2767614, 0.1351964, 0.4689924, 0.8372359, 0.5639544,
        0.1221057, 0.5889106, 0.4427051, 0.4925041, 0.8994048, 0.4455862, 0.3867279, 0.778562, 0.5686771, 0.559908,
        0.6575972, 0.9788932, 0.6484873, 0.4167858, 0.60702, 0.5273454, 0.5591484, 0.6984626, 0.5708817, 0.6753597,
        0.8467944, 0.8195323, 0.6302946, 0.3080291, 0.01720652, 0.5156351, 0.6205786, 0.3197285, 0.8167751,
        0.7643551, 0.4764678, 0.7386267, 0.5982769, 0.3633187, 0.1725715, 0.7390223, 0.9618205, 0.6981488, 0.5860563,
        0.372926, 0.1934476, 0.6577212, 0.5684849, 0.4283791, 0.3105596, 0.4391817, 0.4589308, 0.3110796, 0.1080619,
        0.3593005, 0.7088764, 0.5694365, 0.5364614, 0.4893736, 0.4456615, 0.351935, 0.2806625, 0.2414158, 0.1491098,
        0.4787701, 0.8633941, 0.5037591, 0.5126383, 0.5257649, 0.5375186, 0.5492724, 0.5610261, 0.5728425, 0.5882434,
        0.5730054, 0.5505825,
    ]
    private static let from12x10To3x4: [Float] = [
        0.5140294, 0.5839036, 0.5133678, 0.4819224, 0.5460762, 0.5414132, 0.5501112, 0.4967147, 0.6301631, 0.3924456,
        0.5326185, 0.5820605,
    ]
    private static let from9x7To5x3: [Float] = [
        0.4915811, 0.5119945, 0.5782464, 0.5613803, 0.6508794, 0.5894606, 0.399704, 0.5094734, 0.5334796, 0.7118369,
        0.503321, 0.581054, 0.5239023, 0.4272317, 0.5758202,
    ]

    @Test(
        "a whole image has Pillow's values, upsampled and reduced",
        arguments: [
            (7, 6, 10, 8, from7x6To10x8), (12, 10, 3, 4, from12x10To3x4), (9, 7, 5, 3, from9x7To5x3),
        ])
    func pillow(width: Int, height: Int, newWidth: Int, newHeight: Int, expected: [Float]) {
        let plane = ramp(width: width, height: height)
        var image = RGBImage(width: width, height: height, pixels: plane.flatMap { [$0, 2 * $0, 1 - $0] })
        image.alpha = plane
        let result = image.resizedBicubic(width: newWidth, height: newHeight)
        #expect(result.alpha.count == expected.count)
        for (i, value) in expected.enumerated() {
            #expect(abs(result.alpha[i] - value) < 1e-6)
            #expect(result.pixels[3 * i] == result.alpha[i])
            #expect(abs(result.pixels[3 * i + 1] - 2 * value) < 2e-6)
            #expect(abs(result.pixels[3 * i + 2] - (1 - value)) < 2e-6)
        }
    }

    @Test(
        "an upsampled window has Pillow's values away from the edges",
        arguments: [
            (13, 11, 52, 44), (13, 11, 30, 18), (7, 6, 10, 8),
        ])
    func interior(width: Int, height: Int, newWidth: Int, newHeight: Int) throws {
        let plane = ramp(width: width, height: height)
        var image = RGBImage(width: width, height: height)
        image.alpha = plane
        let expected = image.resizedBicubic(width: newWidth, height: newHeight).alpha
        let upsampler = try BicubicUpsampler(
            inputHeight: height, inputWidth: width, outputHeight: newHeight, outputWidth: newWidth)
        let result = try upsample(plane, channels: 1, upsampler, window: whole(upsampler))
        let (top, left) = (2 * newHeight / height, 2 * newWidth / width)
        for y in top..<newHeight - top {
            for x in left..<newWidth - left {
                #expect(abs(result[y * newWidth + x] - expected[y * newWidth + x]) < 1e-5)
            }
        }
    }

    @Test("sizes that cannot be are errors, however large")
    func refusals() throws {
        for (input, output) in [(0, 4), (-1, 4), (4, 3), (1 << 31, 1 << 31), (.max, .max), (1, .max)] {
            #expect(throws: ResampleError.self) {
                try BicubicUpsampler(inputHeight: input, inputWidth: 4, outputHeight: output, outputWidth: 8)
            }
            #expect(throws: ResampleError.self) {
                try BicubicUpsampler(inputHeight: 4, inputWidth: input, outputHeight: 8, outputWidth: output)
            }
        }
        let upsampler = try BicubicUpsampler(inputHeight: 4, inputWidth: 4, outputHeight: 8, outputWidth: 8)
        for bad in [Int.min, -1 << 40, 1 << 40, Int.max] {
            for window in [
                Rect(y: bad, x: 0, height: 1, width: 1), Rect(y: 0, x: bad, height: 1, width: 1),
                Rect(y: 0, x: 0, height: bad, width: 1), Rect(y: 0, x: 0, height: 1, width: bad),
            ] {
                #expect(throws: ResampleError.invalidWindow(window)) { try upsampler.sourceRect(for: window) }
            }
        }
        let window = Rect(y: 0, x: 0, height: 8, width: 8)
        let values = [Float](repeating: 0, count: 16)
        var output = [Float](repeating: 0, count: 64)
        func attempt(_ rect: Rect, channels: Int, count: Int, outputs: Int) throws {
            output = [Float](repeating: 0, count: outputs)
            var span = output.mutableSpan
            try upsampler.upsample(
                crop: values.span.extracting(0..<count), cropRect: rect, channels: channels, window: window, into: &span
            )
        }
        let full = Rect(y: 0, x: 0, height: 4, width: 4)
        try attempt(full, channels: 1, count: 16, outputs: 64)
        #expect(throws: ResampleError.self) { try attempt(full, channels: 1, count: 15, outputs: 64) }
        #expect(throws: ResampleError.self) { try attempt(full, channels: 1, count: 16, outputs: 63) }
        #expect(throws: ResampleError.self) { try attempt(full, channels: 0, count: 0, outputs: 0) }
        #expect(throws: ResampleError.self) { try attempt(full, channels: .max, count: 16, outputs: 64) }
        for bad in [-1, 1, .min, .max] {
            for rect in [Rect(y: bad, x: 0, height: 4, width: 4), Rect(y: 0, x: 0, height: bad, width: 4)] {
                #expect(throws: ResampleError.self) { try attempt(rect, channels: 1, count: 16, outputs: 64) }
            }
        }
    }
}
