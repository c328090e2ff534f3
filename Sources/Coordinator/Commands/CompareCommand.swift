import ArgumentParser
import Engine
import Foundation

struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Measure how near two pictures of one size are: PSNR, SSIM, fine detail. Prints JSON.")

    @Argument(help: "The picture to judge.")
    var image: String

    @Argument(help: "The picture that it should be.")
    var reference: String

    private struct Report: Encodable {
        var psnr: Double?
        var ssim: Double?
        /// The image's power above half the Nyquist frequency over the reference's.
        var fine_detail: Double
    }

    func run() throws {
        let (image, reference) = (try RGBImage(png: image), try RGBImage(png: reference))
        guard image.width == reference.width, image.height == reference.height else {
            throw ValidationError(
                "the pictures differ in size: \(image.width)x\(image.height) and \(reference.width)x\(reference.height)"
            )
        }
        let psnr = ImageMetrics.psnr(image, reference)
        let report = Report(
            psnr: psnr.isFinite ? psnr : nil, ssim: ImageMetrics.ssim(image, reference),
            fine_detail: ImageMetrics.powerAboveHalfNyquist(image) / ImageMetrics.powerAboveHalfNyquist(reference))
        try printJSON(report)
    }
}
