/// How a super-resolution network is fed, from `tilefarm.json` beside its `config.json`.
///
/// The network denoises `residualScale` x (image - guess), where the guess is the input upsampled; noisy residual and
/// guess are stacked along the channels (residual first), each rearranged from blocks of `spaceToDepth` x
/// `spaceToDepth` pixels to channels.
public struct SuperResolutionConfiguration: Sendable, Hashable {
    /// How the guess is made.
    public enum Conditioning: String, Sendable, CaseIterable {
        case bicubic
    }

    /// Output pixels per input pixel and axis.
    public var scale: Int
    public var spaceToDepth: Int
    public var residualScale: Float
    public var conditioning: Conditioning

    public init(scale: Int, spaceToDepth: Int, residualScale: Float, conditioning: Conditioning) {
        self.scale = scale
        self.spaceToDepth = spaceToDepth
        self.residualScale = residualScale
        self.conditioning = conditioning
    }
}
