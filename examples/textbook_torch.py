"""The textbook's first program as plain torch, with segue.nn in the place of torch.nn."""

import torch

from segue import nn

torch.manual_seed(0)
x, y = torch.randn(10, 20, 10), torch.randn(10, 1)
rnn, readout = nn.RNN(10, 50, batch_first=True), torch.nn.Linear(50, 1)
optimizer = torch.optim.Adam([*rnn.parameters(), *readout.parameters()], lr=0.01)
for _ in range(100):
    outputs, _ = rnn(x)
    loss = torch.nn.functional.mse_loss(readout(outputs[:, -1]), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"squared error after 100 epochs: {loss.item():.6f}")
