import Engine
import Foundation
import Testing

@Suite("Image metrics")
struct ImageMetricsTests {
    // NumPy and scikit-image 0.26, on the images made below:
    //   peak_signal_noise_ratio(A, B, data_range=1)
    //   structural_similarity(A, B, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    //   data_range=1) p = (A @ [.299, .587, .114])[:32, 4:36]; win = lambda n: .5 - .5*cos(2*pi*(arange(n) + .5)/n); w
    //   = outer(win(32), win(32)) F = abs(fft2((p - p.mean())*w))**2; F[hypot(fftfreq(32)[:, None], fftfreq(32)[None])
    //   > .25].sum()/32**2/(w**2).sum()
    private let a = pattern(width: 40, height: 33, 3, 5, 53, 7)
    private let b = pattern(width: 40, height: 33, 3, 5, 50, 9)

    private static func pattern(width: Int, height: Int, _ dx: Int, _ dy: Int, _ dc: Int, _ modulus: Int) -> RGBImage {
        var image = RGBImage(width: width, height: height)
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<3 {
                    image.pixels[(y * width + x) * 3 + c] =
                        Float((x * dx + y * dy + c * dc + (x * y) % modulus) % 256) / 255
                }
            }
        }
        return image
    }

    @Test("PSNR is scikit-image's, infinite for equal images, and sees what 8 bits can show")
    func psnr() {
        #expect(abs(ImageMetrics.psnr(a, b) - 18.210468331185144) < 1e-9)
        #expect(ImageMetrics.psnr(a, a) == .infinity)
        var near = a
        near.pixels[7] += 0.4 / 255
        #expect(ImageMetrics.psnr(a, near) == .infinity)
    }

    @Test("SSIM is scikit-image's, one for equal images, and needs an eleven-pixel window")
    func ssim() throws {
        #expect(abs(try #require(ImageMetrics.ssim(a, b)) - 0.8524781636676296) < 1e-6)
        #expect(abs(try #require(ImageMetrics.ssim(a, a)) - 1) < 1e-12)
        let small = RGBImage(width: 10, height: 40)
        #expect(ImageMetrics.ssim(small, small) == nil)
    }

    @Test("power above half of Nyquist is NumPy's, and that of a wave is all or nothing")
    func power() {
        #expect(abs(ImageMetrics.powerAboveHalfNyquist(a) / 0.0004677073959719203 - 1) < 1e-5)
        for (frequency, expected) in [(0.1, 0.0), (0.2, 0.0), (0.3, 0.02), (0.45, 0.02)] {
            for across in [false, true] {
                var wave = RGBImage(width: 150, height: 130)
                for i in 0..<150 * 130 {
                    let value = Float(0.5 + 0.2 * sin(2 * Double.pi * frequency * Double(across ? i % 150 : i / 150)))
                    for c in 0..<3 { wave.pixels[3 * i + c] = value }
                }
                #expect(abs(ImageMetrics.powerAboveHalfNyquist(wave) - expected) < 2e-4)
            }
        }
        #expect(ImageMetrics.powerAboveHalfNyquist(RGBImage(width: 3, height: 1)) == 0)
    }
}
