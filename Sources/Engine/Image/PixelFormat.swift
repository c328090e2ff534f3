/// How a PNG stores a pixel: its channels and their depth. A row of samples is `rowBytes(width:)` bytes, the channels
/// interleaved in the order grey or red, green, blue, then alpha; samples of 16 bits have their high byte first.
public struct PixelFormat: Sendable, Hashable {
    public let isGrey: Bool
    public let hasAlpha: Bool
    /// Bits per channel, 8 or 16.
    public let bitDepth: Int

    public init(grey: Bool, alpha: Bool, bitDepth: Int) {
        precondition(bitDepth == 8 || bitDepth == 16, "8 or 16 bits")
        isGrey = grey
        hasAlpha = alpha
        self.bitDepth = bitDepth
    }

    public var channels: Int { (isGrey ? 1 : 3) + (hasAlpha ? 1 : 0) }
    public var pixelBytes: Int { channels * bitDepth / 8 }

    /// - Parameter width: 1 to 2^31 pixels.
    public func rowBytes(width: Int) -> Int { width * pixelBytes }

    /// Turns a row of numbers into samples. Values are clamped to [0, 1] and rounded to the nearest step, halves
    /// upwards; NaN becomes 0.
    ///
    /// - Parameters:
    ///   - rgb: pixels of three interleaved channels. Grey takes their mean.
    ///   - alpha: as many values as pixels; ignored, and may be empty, without an alpha channel.
    ///   - samples: receives `rowBytes`.
    ///   - kernels: which to use; all give the same.
    public func pack(
        rgb: Span<Float>, alpha: Span<Float>, into samples: inout MutableSpan<UInt8>, kernels: KernelSet = .best
    ) {
        let width = rgb.count / 3
        precondition(
            rgb.count == width * 3 && samples.count == rowBytes(width: width) && (!hasAlpha || alpha.count == width))
        // Of the usual kind the numbers stand as the samples will.
        guard isGrey || hasAlpha else {
            return Quantization.quantize(rgb, bits: bitDepth, into: &samples, kernels: kernels)
        }
        let channels = channels
        var values = [Float](repeating: 0, count: width * channels)
        for x in 0..<width {
            if isGrey {
                values[x * channels] = (rgb[3 * x] + rgb[3 * x + 1] + rgb[3 * x + 2]) / 3
            } else {
                for c in 0..<3 { values[x * channels + c] = rgb[3 * x + c] }
            }
            if hasAlpha { values[x * channels + channels - 1] = alpha[x] }
        }
        Quantization.quantize(values.span, bits: bitDepth, into: &samples, kernels: kernels)
    }

    /// Turns samples into numbers: the stored value divided by its maximum.
    ///
    /// - Parameters:
    ///   - samples: whole pixels, a row or a part of one.
    ///   - rgb: receives three interleaved channels in [0, 1]; a grey value stands in all three. May be empty when it
    ///     is not wanted.
    ///   - alpha: receives values in [0, 1], 1 without an alpha channel. May be empty when it is not wanted.
    public func unpack(_ samples: Span<UInt8>, rgb: inout MutableSpan<Float>, alpha: inout MutableSpan<Float>) {
        let width = samples.count / pixelBytes
        precondition(
            samples.count == rowBytes(width: width) && (rgb.count == width * 3 || rgb.isEmpty)
                && (alpha.count == width || alpha.isEmpty))
        if bitDepth == 8 {
            unpack(samples, rgb: &rgb, alpha: &alpha) { Float($0[$1]) / 255 }
        } else {
            unpack(samples, rgb: &rgb, alpha: &alpha) {
                Float(UInt16($0[2 * $1]) << 8 | UInt16($0[2 * $1 + 1])) / 65535
            }
        }
    }

    @inline(__always)
    private func unpack(
        _ samples: Span<UInt8>, rgb: inout MutableSpan<Float>, alpha: inout MutableSpan<Float>,
        value: (Span<UInt8>, Int) -> Float
    ) {
        let channels = channels, width = rgb.count / 3
        if isGrey {
            for x in 0..<width {
                let grey = value(samples, x * channels)
                for c in 0..<3 { rgb[3 * x + c] = grey }
            }
        } else {
            for x in 0..<width {
                for c in 0..<3 { rgb[3 * x + c] = value(samples, x * channels + c) }
            }
        }
        for x in 0..<alpha.count { alpha[x] = hasAlpha ? value(samples, x * channels + channels - 1) : 1 }
    }

    /// The kind with 8 bits per channel.
    public var with8Bits: PixelFormat { PixelFormat(grey: isGrey, alpha: hasAlpha, bitDepth: 8) }

    /// Reduces a row of samples of 16 bits to the nearest of 8.
    ///
    /// - Parameters:
    ///   - samples: an even number of bytes
    ///   - reduced: receives half as many
    static func reduceTo8Bits(_ samples: Span<UInt8>, into reduced: inout MutableSpan<UInt8>) {
        precondition(samples.count == 2 * reduced.count)
        for i in 0..<reduced.count {
            let value = UInt32(samples[2 * i]) << 8 | UInt32(samples[2 * i + 1])
            reduced[i] = UInt8(truncatingIfNeeded: (value * 255 + 32767) / 65535)
        }
    }
}

/// A value in [0, 1] as an integer of 0...steps: clamped, rounded to nearest with halves up, NaN to 0.
@inline(__always)
func quantized(_ value: Float, steps: Float) -> Int32 {
    // The comparison is false for NaN.
    let clamped = value > 0 ? (value < 1 ? value : 1) : 0
    return Int32(clamped * steps + 0.5)
}
