import Engine
import Foundation
import Logging
import Protocol

/// How workers come and go.
extension Farm {
    func greet(_ hello: Hello, _ received: RouterSocket.Received) {
        let peer = received.peer
        var bytesSent = 0
        if let worker = workers[peer] {
            // A worker that begins one session after another has a reason each time, and takes its time.
            socket.nuisance(received.connection, cost: worker.hello == hello ? 1 : 10, "hellos without end")
            // The same hello said again: the welcome was lost or is on its way.
            guard worker.hello != hello else { return welcome(hello, to: worker.number) }
            bytesSent = worker.bytesSent
            remove(worker.number, reason: "began a new session")
        }
        if let old = workers.worker(session: hello.session, user: received.user) {
            remove(old.number, reason: "connected anew")
        }
        // With keys nobody chooses a name.
        let ownName = received.user ?? hello.name
        // The first word names our own kernels; a second may be there for OpenBLAS's.
        if let required = configuration.requiredKernels, required != hello.kernels,
            required[...] != bits(hello.kernels).prefix(while: { $0 != " " })
        {
            sendDirectly(
                .refused("this job takes only workers with \(required) kernels, not \(hello.kernels)"), to: peer)
            return useless(received, "\(ownName) has \(hello.kernels) kernels, not \(required)")
        }
        if let needed = job.plan.workerBytes(lanes: hello.lanes, machine: hello.memoryBytes), hello.memoryBytes > 0,
            needed > hello.memoryBytes
        {
            let reason = configuration.words.tooLittleMemory(needed, hello.lanes, hello.memoryBytes)
            sendDirectly(.refused(reason), to: peer)
            return useless(received, "\(ownName) cannot hold the model: \(reason)")
        }
        let number = workers.add(
            hello, peer: peer, connection: received.connection, user: received.user, bytesSent: bytesSent, at: Clock.now
        )
        socket.admit(received.connection, bytesInFlight: Self.idleBytesInFlight)
        welcome(hello, to: number)
    }

    /// The kernels that a worker has, as far as they decide this job's bytes: dot products of bfloat16 serve jobs of
    /// that precision alone.
    func bits(_ kernels: String) -> String {
        job.plan.precision == .bfloat16
            ? kernels
            : kernels.replacingOccurrences(of: KernelSet.avx512bf16.rawValue, with: KernelSet.avx512.rawValue)
    }

    func welcome(_ hello: Hello, to number: Int) {
        send(
            .welcome(
                Welcome(
                    session: hello.session, requiredKernels: configuration.requiredKernels.map { _ in hello.kernels },
                    heartbeatMilliseconds: Int(Self.heartbeatSeconds * 1000),
                    silenceMilliseconds: Int(Self.silenceSeconds * 1000))),
            to: number)
        send(.prepare(Preparation(manifest: job.model.manifest, precision: job.plan.precision)), to: number)
    }

    func ready(_ number: Int, model: ModelDigest) {
        guard let worker = workers[number], !worker.isReady else { return }
        guard model == job.model.manifest.digest else {
            sendDirectly(
                .refused("this worker has another model than the job: start it without a model, or with the job's"),
                to: worker.peer)
            return remove(number, reason: "has another model")
        }
        worker.isReady = true
        fetches.forget(number)
        let tasks = min(worker.hello.credit, Self.maxCredit)
        socket.admit(
            worker.connection,
            bytesInFlight: Self.idleBytesInFlight
                + tasks * (job.plan.sizes.largestOutput + WireLimits.headerBytes), isAtWork: true)
        summary.workers += 1
        logger.info(
            "worker joined",
            metadata: [
                "worker": "\(worker.name)", "host": "\(worker.hello.host)", "lanes": "\(worker.hello.lanes)",
                "kernels": "\(worker.hello.kernels)",
            ])
        // Asked of the first alone: a comparison with all makes a thousand joins cost a second.
        let kernels = bits(worker.hello.kernels)
        if firstKernels == nil { firstKernels = kernels }
        if kernels != firstKernels, !hasMixedKernels {
            hasMixedKernels = true
            logger.warning("\(configuration.words.mixedKernels)")
        }
        happened(
            .joined(
                number, lanes: worker.hello.lanes, credit: tasks,
                identity: worker.user ?? "\(worker.hello.name) on \(worker.hello.host)"))
    }

    /// Ends the connection of a worker that does not get on.
    func expel(_ worker: WorkerPeer, reason: String) {
        socket.cut(worker.connection, reason: nil)
        configuration.onStuck(worker.hello.name, worker.lastHeard)
        remove(worker.number, reason: reason)
    }

    func remove(_ number: Int, reason: String) {
        guard let worker = workers.remove(number) else { return }
        fetches.forget(number)
        if worker.isReady {
            logger.info(
                "worker left",
                metadata: ["worker": "\(worker.name)", "tiles": "\(worker.tiles)", "reason": "\(reason)"])
        } else {
            strangers.count(worker.name, "left before it was ready: \(reason)")
        }
        happened(.left(number, reason: reason))
    }
}
