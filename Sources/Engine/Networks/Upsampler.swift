/// Upsamples twice by nearest neighbour and convolves: diffusers' `Upsample2D`.
struct Upsampler {
    var convolution: Convolution

    /// - Parameters:
    ///   - height: twice the input's, or one less, where the last row of the upsampled input is left out
    ///   - width: likewise
    func callAsFunction(_ input: Activation, height: Int, width: Int, workspace: Workspace) -> Activation {
        let whole = convolution(input, workspace: workspace)
        let (lessRows, lessColumns) = (height < whole.height, width < whole.width)
        guard lessRows || lessColumns else { return whole }

        // The convolution is linear, so what the row or column that is left out has added to the one before it is
        // subtracted again; in the corner that has been done twice.
        let below = lessRows ? edge(of: input, row: true, column: false, workspace) : nil
        let right = lessColumns ? edge(of: input, row: false, column: true, workspace) : nil
        let corner = lessRows && lessColumns ? edge(of: input, row: true, column: true, workspace) : nil
        let result = workspace.activation(height: height, width: width, channels: whole.channels)
        var to = result.mutableSpan
        let from = whole.span, channels = whole.channels
        for y in 0..<height {
            for x in 0..<width {
                for c in 0..<channels {
                    var value = from[(y * whole.width + x) * channels + c]
                    if let below, y == height - 1 {
                        value -= below.span[(below.width + x) * channels + c] - below.span[x * channels + c]
                    }
                    if let right, x == width - 1 {
                        value -=
                            right.span[(y * right.width + 1) * channels + c]
                            - right.span[y * right.width * channels + c]
                    }
                    if let corner, y == height - 1, x == width - 1 {
                        value += corner.span[(corner.width + 1) * channels + c] - corner.span[c]
                    }
                    to[(y * width + x) * channels + c] = value
                }
            }
        }
        return result
    }

    /// The input's last row, last column, or corner, convolved with zeros before it: the output's row (or column) 1 is
    /// what it adds to the one before it, and row 0 is the bias alone.
    private func edge(of input: Activation, row: Bool, column: Bool, _ workspace: Workspace) -> Activation {
        let part = workspace.activation(
            height: row ? 2 : input.height, width: column ? 2 : input.width, channels: input.channels)
        var to = part.mutableSpan
        let from = input.span
        for y in 0..<part.height {
            for x in 0..<part.width {
                let isZero = (row && y == 0) || (column && x == 0)
                let source =
                    ((row ? input.height - 1 : y) * input.width + (column ? input.width - 1 : x)) * input.channels
                for c in 0..<input.channels {
                    to[(y * part.width + x) * input.channels + c] = isZero ? 0 : from[source + c]
                }
            }
        }
        return convolution(part, moments: false, workspace: workspace)
    }
}
