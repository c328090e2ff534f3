import Engine
import Foundation

/// The kernels' definitions, as plainly as they can be written and in double precision. What the engine computes is
/// proved against these.
enum Reference {
    /// Any convolution of height x width x channels with zeros around it: `before` rows and columns of them above and
    /// to the left.
    static func convolution(
        _ input: Image, weights: [Float], bias: [Float], outputs: Int, size: Int, stride: Int = 1, before: Int,
        outputHeight: Int, outputWidth: Int
    ) -> Image {
        var result = Image(height: outputHeight, width: outputWidth, channels: outputs)
        for y in 0..<outputHeight {
            for x in 0..<outputWidth {
                for o in 0..<outputs {
                    var sum = Double(bias[o])
                    for i in 0..<size {
                        for j in 0..<size {
                            let (row, column) = (y * stride - before + i, x * stride - before + j)
                            guard (0..<input.height).contains(row), (0..<input.width).contains(column) else { continue }
                            for c in 0..<input.channels {
                                sum +=
                                    input[row, column, c]
                                    * Double(weights[((o * input.channels + c) * size + i) * size + j])
                            }
                        }
                    }
                    result[y, x, o] = sum
                }
            }
        }
        return result
    }

    static func upsampled(_ input: Image) -> Image {
        Image(height: input.height * 2, width: input.width * 2, channels: input.channels) { input[$0 / 2, $1 / 2, $2] }
    }

    static func concatenated(_ a: Image, _ b: Image?) -> Image {
        guard let b else { return a }
        return Image(height: a.height, width: a.width, channels: a.channels + b.channels) { y, x, c in
            c < a.channels ? a[y, x, c] : b[y, x, c - a.channels]
        }
    }

    static func silu(_ x: Double) -> Double { x / (1 + exp(-x)) }

    static func rounded(_ x: Float, to precision: Precision) -> Float {
        switch precision {
        case .float32: return x
        case .float16: return Float(Float16(x))
        case .bfloat16:
            let bits = x.bitPattern, low = bits & 0xffff, down = bits - low
            return Float(bitPattern: low > 0x8000 || (low == 0x8000 && down & 0x10000 != 0) ? down + 0x10000 : down)
        }
    }

    static func gelu(_ x: Double) -> Double { 0.5 * x * (1 + erf(x / 2.0.squareRoot())) }

    static func groupNorm(_ input: Image, gamma: [Float], beta: [Float], groups: Int, eps: Double) -> Image {
        let size = input.channels / groups
        var result = input
        for group in 0..<groups {
            let channels = group * size..<(group + 1) * size
            var values: [Double] = []
            for y in 0..<input.height {
                for x in 0..<input.width { for c in channels { values.append(input[y, x, c]) } }
            }
            let mean = values.reduce(0, +) / Double(values.count)
            let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count)
            for y in 0..<input.height {
                for x in 0..<input.width {
                    for c in channels {
                        result[y, x, c] =
                            (input[y, x, c] - mean) / (variance + eps).squareRoot() * Double(gamma[c]) + Double(beta[c])
                    }
                }
            }
        }
        return result
    }

    /// Rows of positions; a head's channels side by side.
    static func attention(query: Image, key: Image, value: Image, heads: Int, causal: Bool = false) -> Image {
        let width = query.channels / heads
        var result = Image(height: query.height, width: query.width, channels: query.channels)
        for head in 0..<heads {
            let channels = head * width..<(head + 1) * width
            for q in 0..<query.positions {
                let scores = (0..<(causal ? min(q + 1, key.positions) : key.positions)).map { k in
                    channels.reduce(0.0) { $0 + query[q, $1] * key[k, $1] } / Double(width).squareRoot()
                }
                let largest = scores.max() ?? 0
                let weights = scores.map { exp($0 - largest) }
                let total = weights.reduce(0, +)
                for c in channels {
                    result[q, c] = weights.indices.reduce(0.0) { $0 + weights[$1] * value[$1, c] } / total
                }
            }
        }
        return result
    }
}

/// height x width x channels in double precision.
struct Image {
    let height, width, channels: Int
    private(set) var values: [Double]

    init(height: Int, width: Int, channels: Int, value: (Int, Int, Int) -> Double = { _, _, _ in 0 }) {
        (self.height, self.width, self.channels) = (height, width, channels)
        values = []
        values.reserveCapacity(height * width * channels)
        for y in 0..<height { for x in 0..<width { for c in 0..<channels { values.append(value(y, x, c)) } } }
    }

    init(_ activation: Activation) {
        let span = activation.span
        (height, width, channels) = (activation.height, activation.width, activation.channels)
        values = []
        for i in span.indices { values.append(Double(span[i])) }
    }

    var positions: Int { height * width }

    subscript(y: Int, x: Int, c: Int) -> Double {
        get { values[(y * width + x) * channels + c] }
        set { values[(y * width + x) * channels + c] = newValue }
    }

    subscript(position: Int, c: Int) -> Double {
        get { values[position * channels + c] }
        set { values[position * channels + c] = newValue }
    }

    func map(_ transform: (Double) -> Double) -> Image {
        Image(height: height, width: width, channels: channels) { transform(self[$0, $1, $2]) }
    }

    static func + (a: Image, b: Image) -> Image {
        Image(height: a.height, width: a.width, channels: a.channels) { a[$0, $1, $2] + b[$0, $1, $2] }
    }
}

/// The largest difference over the largest magnitude of `expected`.
func relativeError(_ actual: Activation, _ expected: Image) -> Double {
    guard (actual.height, actual.width, actual.channels) == (expected.height, expected.width, expected.channels) else {
        return .infinity
    }
    let span = actual.span
    var difference = 0.0, largest = 0.0
    for i in span.indices {
        guard span[i].isFinite else { return .infinity }
        difference = max(difference, abs(Double(span[i]) - expected.values[i]))
        largest = max(largest, abs(expected.values[i]))
    }
    return difference / largest
}

extension SplitMix64 {
    init(seed: Int) { self.init(state: UInt64(truncatingIfNeeded: seed)) }

    mutating func floats(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
        (0..<count).map { _ in .random(in: range, using: &self) }
    }

    mutating func activation(_ height: Int, _ width: Int, _ channels: Int, in range: ClosedRange<Float> = -1...1)
        -> Activation
    {
        let result = Activation(height: height, width: width, channels: channels)
        var span = result.mutableSpan
        for i in span.indices { span[i] = .random(in: range, using: &self) }
        return result
    }

    /// Often a multiple of 16, as in real networks, often anything.
    mutating func channels() -> Int {
        Bool.random(using: &self) ? 16 * Int.random(in: 1...7, using: &self) : Int.random(in: 1...70, using: &self)
    }
}
