import Engine
import Protocol

/// A user's request, as a value that can be stored and sent. It is made from a command line by `UpscaleOptions.request`
/// and by nothing else; a job folder keeps it, and `resume` reads it.
///
/// A choice that a user has not made is nil: the method chooses it, and a job's digest is over what comes of that.
package struct RenderRequest: Codable, Sendable, Hashable {
    /// Raised when a stored request would mean something else.
    package static let version = 1

    /// Where the finished picture goes; absolute paths.
    package struct Output: Codable, Sendable, Hashable {
        package var png: String
        /// The folder of a Deep Zoom pyramid.
        package var deepZoom: String?

        package init(png: String, deepZoom: String? = nil) {
            self.png = png
            self.deepZoom = deepZoom
        }
    }

    package struct SamplerChoice: Codable, Sendable, Hashable {
        /// A name of the sampler table.
        package var name = DDIM.name
        package var options = SamplerOptions()

        package init() {}
    }

    /// Guidance of a latent model's denoiser.
    package struct Guidance: Codable, Sendable, Hashable {
        package var prompt: String?
        package var negativePrompt: String?
        /// 1 is no guidance at all.
        package var scale: Double?

        package init() {}
    }

    /// How the canvas is cut. Lengths are in pixels, or in latents for latent models.
    package struct TilingChoice: Codable, Sendable, Hashable {
        package enum Overlap: String, Codable, Sendable, CaseIterable { case implicit, reference, explicit, none }
        package enum Offset: String, Codable, Sendable, CaseIterable { case random, fixed, none }

        package var overlap = Overlap.implicit
        package var offset = Offset.random
        package var tile: Int?
        package var halo: Int?
        package var offsetRange: Int?
        /// The width that windows share with `explicit`.
        package var overlapWidth: Int?
        package var weights = BlendWeights.gaussian
        /// The side of the autoencoder's windows, in latents.
        package var autoencoderTile: Int?

        package init() {}
    }

    package var version = RenderRequest.version
    /// The picture to enlarge; an absolute path.
    package var input: String
    package var output: Output
    /// A model folder's absolute path; nil for the model that comes with the program.
    package var model: String?
    /// A name of the method table; nil for the method that the model is made for.
    package var method: String?
    /// How much larger the output is along each axis.
    package var scale: Double?
    /// The part of the sampler's loop that image to image takes, above 0 to 1.
    package var strength: Double?
    /// The level of the noise on the low-resolution pixels of an upscale pipeline.
    package var noiseLevel: Int?
    package var steps: Int?
    package var sampler = SamplerChoice()
    package var guidance = Guidance()
    package var tiling = TilingChoice()
    package var precision: Precision?
    package var seed: UInt64 = 0
    /// How the canvas is stored, and sent where tiles are not blended.
    package var storage = CanvasElement.float32

    package init(input: String, output: Output) {
        self.input = input
        self.output = output
    }
}

extension RenderRequest {
    /// A digest of everything but the places of files: of a canonical encoding, so that it stays the same whatever
    /// the properties are called and however they are stored.
    package var digest: String {
        var encoding = CanonicalEncoding("tilefarm request")
        encoding.add(version)
        encoding.add(method)
        encoding.add(scale)
        encoding.add(strength)
        encoding.add(noiseLevel)
        encoding.add(steps)
        encoding.add(sampler.name)
        encoding.add(sampler.options.eta)
        encoding.add(guidance.prompt)
        encoding.add(guidance.negativePrompt)
        encoding.add(guidance.scale)
        encoding.add(tiling.overlap.rawValue)
        encoding.add(tiling.offset.rawValue)
        encoding.add(tiling.tile)
        encoding.add(tiling.halo)
        encoding.add(tiling.offsetRange)
        encoding.add(tiling.overlapWidth)
        encoding.add(tiling.weights.rawValue)
        encoding.add(tiling.autoencoderTile)
        encoding.add(precision?.rawValue)
        encoding.add(Int(truncatingIfNeeded: seed))
        encoding.add(storage.rawValue)
        return encoding.digest
    }
}

/// Values one after the other, each after its kind and length, so that different values never give the same bytes.
package struct CanonicalEncoding {
    private enum Kind: UInt8 { case nothing, integer, number, text, bytes }

    package private(set) var bytes: [UInt8] = []

    /// - Parameter purpose: two encodings of different purposes never agree.
    package init(_ purpose: String) { add(purpose) }

    package mutating func add(_ value: Int?) { add(.integer, value.map { Self.bytes(UInt64(bitPattern: Int64($0))) }) }
    package mutating func add(_ value: Double?) { add(.number, value.map { Self.bytes($0.bitPattern) }) }
    package mutating func add(_ value: String?) { add(.text, value.map { Array($0.utf8) }) }
    package mutating func add(_ value: [UInt8]) { add(.bytes, value) }

    /// SHA-256 in hexadecimal.
    package var digest: String { ContentDigest(of: bytes).hex }

    private mutating func add(_ kind: Kind, _ value: [UInt8]?) {
        guard let value else { return bytes.append(Kind.nothing.rawValue) }
        bytes.append(kind.rawValue)
        bytes.append(contentsOf: Self.bytes(UInt64(value.count)))
        bytes.append(contentsOf: value)
    }

    /// Eight of them, the lowest first.
    private static func bytes(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }
}
