import Engine
import Foundation
import Testing

@Suite struct GuidanceTests {
    @Test("moments of parts add up to those of the whole")
    func parts() {
        var generator = SystemRandomNumberGenerator()
        let values = (0..<1000).map { _ in Float.random(in: -3...5, using: &generator) }
        let whole = Moments(values.span)
        let parts = Moments(values.span.extracting(0..<300)) + Moments(values.span.extracting(300..<1000)) + Moments()
        #expect(parts.count == whole.count)
        #expect(abs(parts.standardDeviation - whole.standardDeviation) < 1e-12)
        let mean = values.reduce(0) { $0 + Double($1) } / 1000
        let variance = values.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / 999
        #expect(abs(whole.standardDeviation - variance.squareRoot()) < 1e-9)
    }

    @Test("the full rescale gives the positive prediction's deviation, none changes nothing")
    func rescale() {
        var generator = SystemRandomNumberGenerator()
        let positive = (0..<500).map { _ in Float.random(in: -1...1, using: &generator) }
        var guided = positive.map { $0 * 7 + 1 }
        let (before, target) = (Moments(guided.span), Moments(positive.span))
        #expect(Guidance.rescaleFactor(positive: target, guided: before, phi: 0) == 1)
        let factor = Guidance.rescaleFactor(positive: target, guided: before, phi: 1)
        var span = guided.mutableSpan
        Guidance.rescale(&span, by: factor)
        #expect(abs(Moments(guided.span).standardDeviation - target.standardDeviation) < 1e-6)
    }

    @Test("a prediction without deviation is left as it is")
    func flat() {
        let flat = [Float](repeating: 0.3, count: 10)
        #expect(Guidance.rescaleFactor(positive: Moments(flat.span), guided: Moments(flat.span), phi: 0.7) == 1)
        #expect(Guidance.rescaleFactor(positive: Moments(), guided: Moments(), phi: 0.7) == 1)
    }
}
